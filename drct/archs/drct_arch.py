"""DRCT: Dense-Residual-Connected Transformer for image super-resolution.

Source: C.-C. Hsu, C.-M. Lee, Y.-S. Chou, "DRCT: Saving Image Super-resolution away from Information Bottleneck",
CVPR Workshops (NTIRE) 2024, arXiv:2404.00722. The blocks are those of Swin Transformer (arXiv:2103.14030).

The file reads top-down from the geometry of windows to the network. Feature maps are tokens of shape (B, H, W, C)
throughout the body. Everything between two feature maps of a dense group - normalization, attention, MLP and the 1x1
convolution - acts on each window alone. So a block is written once, for *any* group of windows (B, n, N, C), and
the network decides how many windows it hands over at a time: all of them in training, a few rows of windows in
inference. Names of parameters are those of the original implementation: its weight files load here, ours load there.

Letters in shapes: B images, H x W tokens, C channels, w = window_size, N = w * w tokens of a window, n windows,
h heads, d channels of a head.
"""

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from inspect import signature

import torch
from einops import rearrange
from timm.layers import DropPath, to_2tuple, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from drct.errors import did_you_mean

__all__ = ["DRCT"]

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, in [0, 1]
UPSAMPLER_CHANNELS = 64
DENSE_SCALE = 0.2  # residual scaling of a dense group, as in ESRGAN's dense blocks
MASKED = -100.0  # added to the logits of token pairs that must not see each other; not -inf, as the weights expect
SHIFTED_BLOCKS = (2, 4)  # of the five of a dense group
HAT_OPTIONS = {"compress_ratio", "squeeze_factor", "conv_scale", "overlap_ratio"}  # in option files, without effect
CPU_BAND_TOKENS = 4096  # tokens handed to a block at a time in inference: a band's activations stay in the cache
GPU_BAND_TOKENS = 65536


# ---------------------------------------------------------------------------------------------- geometry of windows


def window_partition(x: Tensor, w: int) -> Tensor:
    """Cut a feature map into windows: (B, H, W, C) -> (B, H/w * W/w, w*w, C), windows and tokens in row-major order."""
    return rearrange(x, "b (nh wh) (nw ww) c -> b (nh nw) (wh ww) c", wh=w, ww=w)


def window_merge(windows: Tensor, w: int, width: int) -> Tensor:
    """Undo `window_partition`: (B, n, w*w, C) -> (B, H, W, C), where W = `width`."""
    return rearrange(windows, "b (nh nw) (wh ww) c -> b (nh wh) (nw ww) c", nw=width // w, wh=w, ww=w)


def _cached(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Remember the last results of `build`. They are usable in training even if first asked for in inference mode."""

    @lru_cache(maxsize=32)
    def build_normal_tensor(*args) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return build(*args)

    return build_normal_tensor


@_cached
def relative_position_index(w: int, device: torch.device) -> Tensor:
    """Row of the bias table for each pair of tokens of a window: (N, N), int64, values in [0, (2w-1)^2)."""
    side = torch.arange(w, device=device)
    y, x = torch.meshgrid(side, side, indexing="ij")
    dy = y.flatten()[:, None] - y.flatten()[None, :] + w - 1  # (N, N), 0 .. 2w-2
    dx = x.flatten()[:, None] - x.flatten()[None, :] + w - 1
    return dy * (2 * w - 1) + dx


@_cached
def shift_masks(w: int, shift: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The four attention masks that a cyclic shift needs, whatever the size of the image: (4, N, N), 0 or -100.

    A window in the last column (row) of the rolled image holds columns (rows) of both borders of the image, which
    must not see each other. Kind 0: an inner window, no mask; 1: last column; 2: last row; 3: the corner.
    """
    wrapped = torch.arange(w, device=device) >= w - shift  # of a border window: from the opposite border?
    by_row, by_column = wrapped.repeat_interleave(w), wrapped.repeat(w)  # (N,)
    rows_differ = by_row[:, None] != by_row[None, :]  # (N, N)
    columns_differ = by_column[:, None] != by_column[None, :]
    differ = torch.stack([torch.zeros_like(rows_differ), columns_differ, rows_differ, rows_differ | columns_differ])
    return differ.to(dtype) * MASKED


@_cached
def window_kinds(rows: int, columns: int, device: torch.device) -> Tensor:
    """Which of the `shift_masks` each window of a rolled image needs: (rows * columns,), int64, values 0 to 3."""
    last_row = torch.arange(rows, device=device) == rows - 1
    last_column = torch.arange(columns, device=device) == columns - 1
    return (2 * last_row[:, None] + last_column[None, :].long()).flatten()


def shift_attention_mask(height: int, width: int, w: int, shift: int) -> Tensor:
    """The mask of every window of a height x width image: (n, N, N), float32, on the CPU.

    Not used to compute anything: the original keeps it in its weight files.
    """
    cpu = torch.device("cpu")
    return shift_masks(w, shift, cpu, torch.float32)[window_kinds(height // w, width // w, cpu)]


# ------------------------------------------------------------------------------------------------------- Swin block


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias per relative position (Swin Transformer, 3.2).

    Args:
        dim: Channels C, a multiple of `num_heads`.
        window_size: Side w of a window, in tokens.
        num_heads: Number of heads h.
        qkv_bias: Whether queries, keys and values have an additive bias.
        qk_scale: Factor of the logits; (C / h) ** -0.5 if None or 0.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.attn_drop = attn_drop
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def position_bias(self) -> Tensor:
        """Relative position bias of the logits: (h, N, N)."""
        index = relative_position_index(self.window_size, self.relative_position_bias_table.device)
        return rearrange(self.relative_position_bias_table[index.flatten()], "(q k) h -> h q k", q=len(index))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend within each window: (B, n, N, C) -> (B, n, N, C). `mask`: (n, N, N), added to the logits, or None."""
        q, k, v = rearrange(self.qkv(x), "b n t (three h d) -> three b n h t d", three=3, h=self.num_heads)
        bias = self.position_bias().to(q.dtype)  # (h, N, N)
        if mask is not None:
            bias = bias + mask[:, None].to(q.dtype)  # (n, h, N, N)
        x = self._fused_attention(q, k, v, bias) if self._fused(x) else self._attention(q, k, v, bias)
        return self.proj_drop(self.proj(rearrange(x, "b n h t d -> b n t (h d)")))

    @staticmethod
    def _fused(x: Tensor) -> bool:
        # PyTorch's fused attention on the CPU has no gradient for a bias, and what it falls back to is the slower one.
        return x.device.type != "cpu" or not torch.is_grad_enabled()

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        weights = ((q * self.scale) @ k.transpose(-2, -1) + bias).softmax(dim=-1)  # (B, n, h, N, N)
        return F.dropout(weights, self.attn_drop, self.training).to(v.dtype) @ v  # (B, n, h, N, d)

    def _fused_attention(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        batch, n = q.shape[:2]
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))  # the kernels take (B * n, h, N, d)
        # The fast kernels take a bias of four dimensions only
        bias = bias[None] if bias.ndim == 3 else bias.repeat(batch, 1, 1, 1)  # (1 or B * n, h, N, N)
        dropout = self.attn_drop if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=self.scale)
        return out.unflatten(0, (batch, n))  # (B, n, h, N, d)


class SwinBlock(nn.Module):
    """Swin Transformer block without its shift, on any group of windows.

    Args:
        dim: Channels C.
        window_size: Side w of a window, in tokens.
        num_heads: Number of heads.
        mlp_ratio: Hidden channels of the MLP, as a multiple of C.
        qkv_bias, qk_scale, attn_drop: See `WindowAttention`.
        drop: Dropout rate of the MLP and of the attention's output.
        drop_path: Stochastic depth rate.
        norm_layer: Makes a normalization layer from a channel count.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop: float,
        attn_drop: float,
        drop_path: float,
        norm_layer: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(dim, hidden),
                act=nn.GELU(),
                drop1=nn.Dropout(drop),
                fc2=nn.Linear(hidden, dim),
                drop2=nn.Dropout(drop),
            )
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, n, N, C) -> (B, n, N, C). `mask`: (n, N, N) or None."""
        x = x + self.drop_path(self.attn(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


# ------------------------------------------------------------------------------------------------------ dense group


class DenseGroup(nn.Module):
    """Residual dense group (the paper's RDG): five Swin blocks, each of which sees what all earlier ones made.

    Block k runs on the concatenation of the input (C channels) and the k - 1 earlier outputs (gc channels each); a
    1x1 convolution `adjust{k}` reduces its output to gc channels, the fifth to C.

    Args:
        dim: Channels C of the input and the output.
        growth: Channels gc that each of the first four blocks adds.
        num_heads: Heads h. A block of width c has h - c % h of them.
        mlp_ratio: Of the first three blocks; it is 1 in the last two.
        window_size: Side w of a window, in tokens.
        shift: Cyclic shift of the second and fourth block, in tokens.
        block_options: See `SwinBlock`.
    """

    def __init__(
        self,
        dim: int,
        growth: int,
        window_size: int,
        shift: int,
        num_heads: int,
        mlp_ratio: float,
        **block_options,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        if dim % num_heads:
            raise ValueError(f"embed_dim ({dim}) must be a multiple of num_heads ({num_heads})")
        for k in range(1, 6):
            width = dim + (k - 1) * growth
            heads = num_heads - width % num_heads
            if width % heads:
                raise ValueError(
                    f"block {k} of a dense group is {width} channels wide, which its {heads} heads do not divide: "
                    f"change embed_dim ({dim}), gc ({growth}) or num_heads ({num_heads})"
                )
            block = SwinBlock(width, window_size, heads, mlp_ratio if k <= 3 else 1, **block_options)
            self.add_module(f"swin{k}", block)
            self.add_module(f"adjust{k}", nn.Conv2d(width, growth if k < 5 else dim, 1))

    def forward(self, x: Tensor, band_rows: int, use_checkpoint: bool = False) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W multiples of the window.

        Args:
            x: Feature map.
            band_rows: How many rows of windows are computed at a time. Does not change the result.
            use_checkpoint: Recompute the blocks in the backward pass instead of storing their activations.
        """
        features = x
        for k in range(1, 5):
            # Only gc new channels leave a block, so only they are carried back to a feature map.
            new = F.leaky_relu(self._map_bands(k, features, band_rows, use_checkpoint), 0.2)
            features = torch.cat([features, new], dim=-1)
        return self._map_bands(5, features, band_rows, use_checkpoint) * DENSE_SCALE + x

    def _map_bands(self, k: int, features: Tensor, band_rows: int, use_checkpoint: bool) -> Tensor:
        """Block k and its 1x1 convolution on all windows, a band of window rows at a time: (B, H, W, gc or C)."""
        w, shift = self.window_size, self.shift if k in SHIFTED_BLOCKS else 0
        rows, columns = features.shape[1] // w, features.shape[2] // w
        if shift:
            features = torch.roll(features, (-shift, -shift), dims=(1, 2))
        bands = []
        for row in range(0, rows, band_rows):
            band = features[:, row * w : (row + band_rows) * w]
            mask = self._band_mask(rows, columns, row, band_rows, features) if shift else None
            if use_checkpoint:
                bands.append(checkpoint(self._apply_block, k, band, mask, use_reentrant=False))
            else:
                bands.append(self._apply_block(k, band, mask))
        out = torch.cat(bands, dim=1) if len(bands) > 1 else bands[0]
        return torch.roll(out, (shift, shift), dims=(1, 2)) if shift else out

    def _band_mask(self, rows: int, columns: int, row: int, band_rows: int, like: Tensor) -> Tensor:
        """Masks of the windows of a band: (n, N, N)."""
        kinds = window_kinds(rows, columns, like.device)[row * columns : (row + band_rows) * columns]
        return shift_masks(self.window_size, self.shift, like.device, like.dtype)[kinds]

    def _apply_block(self, k: int, band: Tensor, mask: Tensor | None) -> Tensor:
        block: SwinBlock = getattr(self, f"swin{k}")
        adjust: nn.Conv2d = getattr(self, f"adjust{k}")
        windows = block(window_partition(band, self.window_size), mask)
        new = F.linear(windows, adjust.weight.flatten(1), adjust.bias)  # a 1x1 convolution of tokens
        return window_merge(new, self.window_size, band.shape[2])


# ---------------------------------------------------------------------------------------------------------- network


def _upsampler(scale: int, channels: int) -> nn.Sequential:
    """Sub-pixel upsampling (Shi et al. 2016): (B, channels, H, W) -> (B, channels, H * scale, W * scale)."""
    if scale == 3:
        factors = [3]
    elif scale >= 1 and scale & (scale - 1) == 0:
        factors = [2] * int(math.log2(scale))
    else:
        raise ValueError(f"upscale must be 3 or a power of 2, not {scale}")
    layers: list[nn.Module] = []
    for factor in factors:
        layers += [nn.Conv2d(channels, factor**2 * channels, 3, 1, 1), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


class DRCT(nn.Module):
    """Dense-Residual-Connected Transformer. The defaults are the released DRCT x4 (14.1 M parameters).

    Args:
        img_size: Side or (height, width), in pixels, of the images that the network is trained on. It takes any size;
            this one only decides that nothing is shifted when an image is a single window, and shapes the `attn_mask`
            of the state dict.
        patch_size: Pixels per token side. The network embeds single pixels, so anything but 1 only divides img_size.
        in_chans: Channels of the input and the output.
        embed_dim: Channels C of the body, a multiple of every entry of `num_heads`.
        depths: One entry per dense group. The entries themselves only spread the stochastic depth rates.
        num_heads: Heads of each group, as many entries as `depths`.
        window_size: Side of an attention window.
        mlp_ratio: Hidden channels of the MLPs in the first three blocks of a group, as a multiple of their width.
        qkv_bias: Whether queries, keys and values have an additive bias.
        qk_scale: Factor of the attention logits; head_dim ** -0.5 if None.
        drop_rate, attn_drop_rate: Dropout rates of features and of attention weights.
        drop_path_rate: Stochastic depth rate of the last block; rates rise linearly from 0.
        norm_layer: Makes a normalization layer from a channel count.
        ape: Add a learned absolute position embedding; the network then takes img_size x img_size only.
        patch_norm: Normalize the shallow features before the body.
        use_checkpoint: Recompute activations in the backward pass: less memory, more time.
        upscale: Scale factor: 3 or a power of 2.
        img_range: The network works on values times this number.
        upsampler: 'pixelshuffle', or '' for a body without reconstruction head, which can be loaded but not run.
        resi_connection: Before the long skip connection: '1conv' for a 3x3 convolution, or 'identity'.
        gc: Growth: channels that each block adds within a dense group.
        ignored_options: Options of HAT that DRCT's option files carry along. Any other name is warned about.

    Raises:
        ValueError: for arguments that do not make a network; the message says which and why.
    """

    mean: Tensor

    def __init__(
        self,
        img_size: int | tuple[int, int] = 64,
        patch_size: int | tuple[int, int] = 1,
        in_chans: int = 3,
        embed_dim: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window_size: int = 16,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 4,
        img_range: float = 1.0,
        upsampler: str = "pixelshuffle",
        resi_connection: str = "1conv",
        gc: int = 32,
        **ignored_options,
    ) -> None:
        super().__init__()
        if unknown := sorted(ignored_options.keys() - HAT_OPTIONS):
            known = signature(DRCT).parameters
            named = ", ".join(f"{name}{did_you_mean(name, known)}" for name in unknown)
            warnings.warn(f"DRCT ignores options it does not know: {named}", stacklevel=2)
        if len(num_heads) != len(depths):
            raise ValueError(f"num_heads has {len(num_heads)} entries and depths {len(depths)}: one of each per group")
        if upsampler not in ("pixelshuffle", ""):
            raise ValueError(f"upsampler must be 'pixelshuffle' or '', not {upsampler!r}")
        if resi_connection not in ("1conv", "identity"):
            raise ValueError(f"resi_connection must be '1conv' or 'identity', not {resi_connection!r}")

        (height, width), (patch_height, patch_width) = to_2tuple(img_size), to_2tuple(patch_size)
        self.input_size = (height // patch_height, width // patch_width)
        shift = window_size // 2
        if min(self.input_size) <= window_size:  # the image is a single window, or a single row of them
            window_size, shift = min(self.input_size), 0
        self.window_size, self.shift = window_size, shift
        self.upscale = upscale
        self.img_range = img_range
        self.upsampler = upsampler
        self.use_checkpoint = use_checkpoint
        self.band_tokens: int | None = None  # tokens per band in inference; None: by device
        mean = RGB_MEAN if in_chans == 3 else (0.0,) * in_chans
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)

        # shallow features
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)

        # deep features
        self.patch_embed = nn.Sequential(OrderedDict(norm=norm_layer(embed_dim)) if patch_norm else OrderedDict())
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, math.prod(self.input_size), embed_dim)) if ape else None
        self.pos_drop = nn.Dropout(drop_rate)
        drop_path_rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        self.layers = nn.ModuleList(
            DenseGroup(
                dim=embed_dim,
                growth=gc,
                window_size=window_size,
                shift=shift,
                num_heads=heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                drop=drop_rate,
                attn_drop=attn_drop_rate,
                drop_path=drop_path_rates[sum(depths[:i])],
                norm_layer=norm_layer,
            )
            for i, heads in enumerate(num_heads)
        )
        self.norm = norm_layer(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, 1, 1) if resi_connection == "1conv" else nn.Identity()

        # reconstruction
        if upsampler:
            self.conv_before_upsample = nn.Sequential(
                nn.Conv2d(embed_dim, UPSAMPLER_CHANNELS, 3, 1, 1), nn.LeakyReLU(0.01, inplace=True)
            )
            self.upsample = _upsampler(upscale, UPSAMPLER_CHANNELS)
            self.conv_last = nn.Conv2d(UPSAMPLER_CHANNELS, in_chans, 3, 1, 1)

        self.apply(self._init_weights)
        if self.absolute_pos_embed is not None:
            trunc_normal_(self.absolute_pos_embed, std=0.02)

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale images: (B, in_chans, H, W) -> (B, in_chans, H * upscale, W * upscale), RGB in [0, 1].

        The output is not clamped. H and W must be multiples of `window_size` (`drct.inference` pads any image).

        Raises:
            ValueError: if H or W is not such a multiple, or is not img_size for a network with `ape`.
            RuntimeError: if the network has no reconstruction head (upsampler '').
        """
        self._check_input(x)
        x = (x - self.mean) * self.img_range
        shallow = self.conv_first(x)  # (B, C, H, W)
        x = self.conv_after_body(self.forward_features(shallow)) + shallow
        x = self.conv_last(self.upsample(self.conv_before_upsample(x)))
        return x / self.img_range + self.mean

    def forward_features(self, x: Tensor) -> Tensor:
        """Deep features from shallow ones: (B, C, H, W) -> (B, C, H, W)."""
        x = self.patch_embed(x.permute(0, 2, 3, 1))  # (B, H, W, C), the layout of the whole body
        if self.absolute_pos_embed is not None:
            x = x + self.absolute_pos_embed.view(1, *self.input_size, -1)
        x = self.pos_drop(x)
        for group in self.layers:
            x = group(x, self._band_rows(x), self.use_checkpoint and torch.is_grad_enabled())
        return self.norm(x).permute(0, 3, 1, 2)

    def _computed_entries(self) -> dict[str, Tensor]:
        """What the original's state dict holds besides weights, though it follows from the arguments.

        Entries share two tensors, which `torch.save` writes once.
        """
        index = relative_position_index(self.window_size, torch.device("cpu")).clone()  # may be changed by its owner
        entries: dict[str, Tensor] = {}
        mask = shift_attention_mask(*self.input_size, self.window_size, self.shift) if self.shift else None
        for i in range(len(self.layers)):
            for k in range(1, 6):
                entries[f"layers.{i}.swin{k}.attn.relative_position_index"] = index
                if mask is not None and k in SHIFTED_BLOCKS:
                    entries[f"layers.{i}.swin{k}.attn_mask"] = mask
        return entries

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: value for name, value in self._computed_entries().items()})

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name in self._computed_entries():
            state_dict.pop(prefix + name, None)  # before the blocks, which come next, find them unexpected
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _band_rows(self, x: Tensor) -> int:
        """How many rows of windows to compute at a time: all in training, as many as fit the budget in inference."""
        batch, height, width, _ = x.shape
        rows = height // self.window_size
        if torch.is_grad_enabled():
            return rows
        budget = self.band_tokens or (CPU_BAND_TOKENS if x.device.type == "cpu" else GPU_BAND_TOKENS)
        return max(1, min(rows, budget // (batch * self.window_size * width)))

    def _check_input(self, x: Tensor) -> None:
        if not self.upsampler:
            raise RuntimeError(
                "this DRCT has no reconstruction head (upsampler ''): it has no upscaled image to return. "
                "Set upsampler: pixelshuffle and load weights that have conv_before_upsample, upsample and conv_last."
            )
        height, width = x.shape[-2:]
        if height % self.window_size or width % self.window_size:
            raise ValueError(
                f"DRCT takes images whose sides are multiples of its window of {self.window_size} pixels, "
                f"not {height}x{width}: pad the image, or use drct.inference.upscale, which does"
            )
        if self.absolute_pos_embed is not None and (height, width) != self.input_size:
            raise ValueError(
                f"with ape, DRCT takes {self.input_size[0]}x{self.input_size[1]} images, not {height}x{width}"
            )
