"""What DRCT and HAT have in common with SwinIR (J. Liang et al., ICCVW 2021): everything around their groups.

Letters in shapes: B images, H x W tokens (one per pixel), C channels, w = window_size, N = w * w tokens of a window,
n windows of an image, h heads, d channels of a head.
"""

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from drct.archs import execution, progress
from drct.archs.swin import trunc_normal_
from drct.archs.traits import NetworkTraits
from drct.errors import did_you_mean

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, in [0, 1]
UPSAMPLER_CHANNELS = 64


class Frame(nn.Module):
    """Shallow features, groups of attention blocks within a long skip connection, and a sub-pixel upsampler.

    A subclass calls this constructor, sets `layers`, its groups, and then calls `add_reconstruction`. Parameters have
    the names of the original implementations. See `drct.archs.drct_arch.DRCT` for the arguments.
    """

    mean: Tensor
    layers: nn.ModuleList  # each group: (B, H, W, C) -> (B, H, W, C), H and W multiples of the window

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int | tuple[int, int],
        in_chans: int,
        embed_dim: int,
        window_size: int,
        drop_rate: float,
        norm_layer: Callable[[int], nn.Module],
        ape: bool,
        patch_norm: bool,
        use_checkpoint: bool,
        upscale: int,
        img_range: float,
        upsampler: str,
    ) -> None:
        super().__init__()
        self.input_size = _tokens(img_size, patch_size)
        self.window_size, self.shift = _window_and_shift(self.input_size, window_size)
        self.upscale, self.img_range, self.upsampler = upscale, img_range, upsampler
        self.in_chans, self.embed_dim, self.use_checkpoint = in_chans, embed_dim, use_checkpoint
        mean = RGB_MEAN if in_chans == 3 else (0.0,) * in_chans
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)
        self.patch_embed = nn.Sequential(OrderedDict(norm=norm_layer(embed_dim)) if patch_norm else OrderedDict())
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, math.prod(self.input_size), embed_dim)) if ape else None
        self.pos_drop = nn.Dropout(drop_rate)

    def add_reconstruction(self, norm_layer: Callable[[int], nn.Module], resi_connection: str) -> None:
        """Add the layers after the groups, and give all layers their initial weights."""
        dim = self.embed_dim
        self.norm = norm_layer(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, 1, 1) if resi_connection == "1conv" else nn.Identity()
        if self.upsampler:
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, UPSAMPLER_CHANNELS, 3, 1, 1), nn.LeakyReLU())
            self.upsample = _upsampler(self.upscale, UPSAMPLER_CHANNELS)
            self.conv_last = nn.Conv2d(UPSAMPLER_CHANNELS, self.in_chans, 3, 1, 1)
        self.apply(_init_linear)
        if self.absolute_pos_embed is not None:
            trunc_normal_(self.absolute_pos_embed)
        self.built_structure = execution.structure(self)  # which `execution` compares with a later one

    def forward(self, x: Tensor) -> Tensor:
        """Upscale images: (B, in_chans, H, W) -> (B, in_chans, H * upscale, W * upscale), RGB in [0, 1].

        The output is not clamped. H and W must be multiples of `window_size` (`drct.inference` pads any image).

        Raises:
            ValueError: if H or W is not such a multiple, or is not img_size for a network with `ape`.
            RuntimeError: if the network has no reconstruction head (upsampler '').
        """
        self._check_input(x)
        if execution.takes_over(self):
            return execution.run(self, x)
        x = (x - self.mean) * self.img_range
        shallow = self.conv_first(x)  # (B, C, H, W)
        features = self.embed(shallow)  # (B, H, W, C)
        for group in progress.each(self.layers):
            features = _checkpointed(group, features) if self.use_checkpoint else group(features)
        x = self.reconstruct(shallow, features)
        return x / self.img_range + self.mean

    def embed(self, shallow: Tensor) -> Tensor:
        """Turn shallow features into tokens: (B, C, H, W) -> (B, H, W, C)."""
        x = self.patch_embed(tokens_of(shallow))
        if self.absolute_pos_embed is not None:
            x = x + self.absolute_pos_embed.view(1, *self.input_size, -1)
        return self.pos_drop(x)

    def reconstruct(self, shallow: Tensor, features: Tensor) -> Tensor:
        """Make the enlarged image from shallow (B, C, H, W) and deep features (B, H, W, C)."""
        deep = self.conv_after_body(image_of(self.norm(features))) + shallow  # (B, C, H, W)
        return self.conv_last(self.upsample(self.conv_before_upsample(deep)))  # (B, in_chans, H * upscale, ...)

    def computed_entries(self) -> Mapping[str, Tensor]:
        """Return what the original's state dict holds besides weights; see `drct.archs.original_state`."""
        raise NotImplementedError

    @property
    def traits(self) -> NetworkTraits:
        """What the network takes and gives."""
        return NetworkTraits(
            scale=self.upscale,
            window=self.window_size,
            channels=self.in_chans,
            only_size=None if self.absolute_pos_embed is None else self.input_size,
            upscales=bool(self.upsampler),
            memory=partial(execution.memory_needed, self),
        )

    def _check_input(self, x: Tensor) -> None:
        kind = type(self).__name__
        if not self.upsampler:
            raise RuntimeError(
                f"this {kind} has no reconstruction head (upsampler ''): it has no upscaled image to return. "
                "Set upsampler: pixelshuffle and load weights that have conv_before_upsample, upsample and conv_last."
            )
        height, width = x.shape[-2:]
        if height % self.window_size or width % self.window_size:
            raise ValueError(
                f"{kind} takes images whose sides are multiples of its window of {self.window_size} pixels, "
                f"not {height}x{width}: pad the image, or use drct.inference.upscale, which does"
            )
        if self.absolute_pos_embed is not None and (height, width) != self.input_size:
            raise ValueError(
                f"with ape, {kind} takes {self.input_size[0]}x{self.input_size[1]} images, not {height}x{width}"
            )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: value for name, value in self.computed_entries().items()})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.computed_entries():  # before the blocks, which load next, find these entries unexpected
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def tokens_of(image: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C)."""
    return image.permute(0, 2, 3, 1)


def image_of(tokens: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W)."""
    return tokens.permute(0, 3, 1, 2)


def on_tokens(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution to a feature map of tokens: (B, H, W, C) -> (B, H, W, C')."""
    return tokens_of(conv(image_of(x)))


def stochastic_depth_rates(last: float, count: int) -> list[float]:
    """Return rates that rise linearly from 0 to `last`."""
    return torch.linspace(0, last, count, device="cpu").tolist()


def check_arguments(
    depths: Sequence[int],
    num_heads: Sequence[int],
    upsampler: str,
    resi_connection: str,
) -> None:
    """Check the arguments that DRCT and HAT share. Raises `ValueError`."""
    if len(num_heads) != len(depths):
        raise ValueError(f"num_heads has {len(num_heads)} entries and depths {len(depths)}: one of each per group")
    if upsampler not in ("pixelshuffle", ""):
        raise ValueError(f"upsampler must be 'pixelshuffle' or '', not {upsampler!r}")
    if resi_connection not in ("1conv", "identity"):
        raise ValueError(f"resi_connection must be '1conv' or 'identity', not {resi_connection!r}")


def warn_of_unknown(network: type[nn.Module], options: Iterable[str], silently: Collection[str] = ()) -> None:
    """Warn that a network ignores options, but for those of `silently`."""
    if unknown := sorted(set(options) - set(silently)):
        known = signature(network).parameters
        named = ", ".join(f"{name}{did_you_mean(name, known)}" for name in unknown)
        warnings.warn(f"{network.__name__} ignores options it does not know: {named}", stacklevel=4)


def _checkpointed(group: nn.Module, features: Tensor) -> Tensor:
    return cast(Tensor, checkpoint(group, features, use_reentrant=False))


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _upsampler(scale: int, channels: int) -> nn.Sequential:
    """Make a sub-pixel upsampler (Shi et al. 2016): (B, channels, H, W) -> (B, channels, H * scale, W * scale)."""
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


def _tokens(img_size: int | tuple[int, int], patch_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of an image in tokens."""
    sizes, patches = ((v, v) if isinstance(v, int) else tuple(v) for v in (img_size, patch_size))
    return sizes[0] // patches[0], sizes[1] // patches[1]


def _window_and_shift(input_size: tuple[int, int], window_size: int) -> tuple[int, int]:
    """Return the side of a window and the shift of shifted blocks; an image within one window is not shifted."""
    if min(input_size) <= window_size:
        return min(input_size), 0
    return window_size, window_size // 2
