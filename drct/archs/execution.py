"""Running a DRCT in less time and memory than its definition takes, with the same result.

Everything between two feature maps of a dense group - normalization, attention, MLP and 1x1 convolution - acts on each
window alone. So a block is written here once, for any set of windows (B, n, N, C), and one computes as many windows
at a time as one likes: in training all of them, and what is cheap is recomputed in the backward pass; in inference a
few, whose result goes straight into the feature map of the group, so that nothing but this map ever exists for the
whole image. The convolutions before and after the body are computed tile by tile.

The last layer of a block's MLP and the 1x1 convolution after the block are both linear: they are applied as one
product, which takes 15 % fewer operations in the linear layers of DRCT.

Letters in shapes: see `drct.archs.drct_arch`.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from drct.archs import progress
from drct.archs.kernels import attention, linear, linear_of
from drct.archs.prepared_weights import BlockWeights, Product, block_weights, prepared_weights
from drct.archs.regions import TILE_HALO, Region, autocast_dtype, convolve, pad, read, tile_side, tiles
from drct.archs.tracing import is_traced, is_transformed
from drct.archs.windows import (
    read_windows,
    shift_masks,
    window_areas,
    window_masks,
    window_merge,
    window_partition,
    write_windows,
)

if TYPE_CHECKING:
    from drct.archs.drct_arch import DRCT, DenseGroup
    from drct.archs.swin import SwinBlock

CPU_TOKENS = 4096  # handed to a block at a time in inference, so that their activations stay in the cache
GPU_TOKENS = 65536
BLOCK_COST = 2  # time that an operation of a block takes, where one of the convolutions around them takes 1


# ------------------------------------------------------------------------------------------------------- the decision


def takes_over(network: "DRCT") -> bool:
    """Decide whether this execution may replace a network's definition.

    It may where the result is the same up to rounding and no code of users is left out. The definition runs if

    * a submodule has hooks, or hooks are registered for all modules;
    * a submodule has another class than when the network was built, or its `forward` was replaced, as adapters,
      quantization and parametrizations do; a convolution has other settings; a parameter is no plain tensor;
    * a subclass has groups of another kind, modules of its own, or its own `embed` or `reconstruct`;
    * operations are recorded by torch.compile, torch.export or torch.jit, or transformed by torch.func or forward-mode
      differentiation.

    One thing the definition can do cannot be foreseen: gradients of gradients need it, and raise an error here.
    """
    if is_traced() or is_transformed():
        return False
    if _overrides_parts(network) or _layers_are_patched() or nn.modules.module._has_any_global_hook():
        return False
    _, *submodules = network.modules()
    return (
        structure(network) == network.built_structure
        and not any(map(_is_watched, submodules))
        and all(type(p) in (Tensor, nn.Parameter) for p in network.parameters())
    )


def structure(network: nn.Module) -> list[Any]:
    """Return the classes of all submodules, and the settings of convolutions."""
    _, *submodules = network.modules()
    return [
        (m.kernel_size, m.stride, m.padding, m.dilation, m.groups, m.padding_mode) if type(m) is nn.Conv2d else type(m)
        for m in submodules
    ]


def _overrides_parts(network: "DRCT") -> bool:
    from drct.archs.drct_arch import DRCT, DenseGroup  # which imports this module

    for part in ("embed", "reconstruct"):
        if getattr(type(network), part) is not getattr(DRCT, part) or part in vars(network):
            return True
    return any(type(group) is not DenseGroup for group in network.layers)


def _layers_are_patched() -> bool:
    """Return whether a class of PyTorch got another `forward`, as some programs do to add adapters."""
    kinds = (nn.Linear, nn.Conv2d, nn.LayerNorm)
    return any(not kind.forward.__module__.startswith("torch.nn.") for kind in kinds)


def _is_watched(module: nn.Module) -> bool:
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
        or "forward" in vars(module)
        or module._compiled_call_impl is not None
    )


def run(network: "DRCT", x: Tensor) -> Tensor:
    """Compute what `DRCT.forward` returns."""
    training = any(module.training for module in network.modules())
    if torch.is_grad_enabled() or training or network.absolute_pos_embed is not None:
        return _run_at_once(network, x)
    return _run_in_place(network, x)


# ------------------------------------------------------------------------------------------------------------ training


def _run_at_once(network: "DRCT", x: Tensor) -> Tensor:
    """Compute the definition, with all windows of a block at a time."""
    shallow = network.conv_first((x - network.mean) * network.img_range)
    features = network.embed(shallow)
    recompute = network.use_checkpoint and torch.is_grad_enabled()
    for group in progress.each(network.layers):
        features = _run_group(group, features, recompute)
    return network.reconstruct(shallow, features) / network.img_range + network.mean


def _run_group(group: "DenseGroup", x: Tensor, recompute: bool) -> Tensor:
    """Run a dense group on all windows at a time: (B, H, W, C) -> (B, H, W, C).

    Args:
        group: The group.
        x: Its input.
        recompute: Recompute the blocks in the backward pass instead of storing their activations.
    """
    for k in range(1, 6):
        block: SwinBlock = getattr(group, f"swin{k}")
        height, width = x.shape[1:3]
        w, shift = block.window_size, block.shift
        mask = window_masks(height, width, w, shift, x.device, x.dtype)
        rolled = torch.roll(x, (-shift, -shift), dims=(1, 2)) if shift else x
        windows = window_partition(rolled, w).unflatten(0, (len(x), -1))
        arguments = (group, k, windows, block_weights(group, k, x.dtype), mask)
        new = checkpoint(_run_block, *arguments, use_reentrant=False) if recompute else _run_block(*arguments)
        new = window_merge(new.flatten(0, 1), w, height, width)
        new = torch.roll(new, (shift, shift), dims=(1, 2)) if shift else new
        x = torch.cat([x, new], dim=-1) if k < 5 else new
    return x


# ----------------------------------------------------------------------------------------------------------- inference


def _run_in_place(network: "DRCT", x: Tensor) -> Tensor:
    """Compute the definition in the memory of one dense feature map and a few tiles of the reconstruction."""
    batch, channels, height, width = x.shape
    tokens = tokens_at_a_time(x.device)
    whole = list(tiles(height, width, tokens // max(1, batch)))
    centred = (x - network.mean) * network.img_range
    dim = network.embed_dim
    features = x.new_empty((batch, height, width, dense_channels(network)), dtype=autocast_dtype(x))
    body = features[..., :dim]
    for tile in whole:
        inside = tile.clip(height, width)
        shallow = _shallow(network, centred, tile)[..., : inside.height, : inside.width]
        inside.of_tokens(body).copy_(network.embed(shallow))
    groups: Any = network.layers
    in_body = 1 - _reconstruction_share(network) if progress.is_watched() else 1.0
    for i, group in enumerate(groups):
        with progress.span(in_body * (i / len(groups)), in_body * ((i + 1) / len(groups))):
            _run_group_in_place(group, features, tokens)
    result = x.new_empty((batch, channels, height * network.upscale, width * network.upscale))
    reconstruction = _Reconstruction(network, centred, body)
    for i, tile in enumerate(whole):
        progress.report(in_body + (1 - in_body) * i / len(whole))
        inside = tile.clip(height, width).enlarge(network.upscale)
        part = reconstruction.image(tile.enlarge(network.upscale))[..., : inside.height, : inside.width]
        inside.of(result).copy_(part / network.img_range + network.mean)
    progress.report(1)
    return result


def _run_group_in_place(group: "DenseGroup", features: Tensor, tokens: int) -> None:
    """Run a dense group a few windows at a time, each through a whole block, without another feature map.

    Args:
        group: The group.
        features: (B, H, W, C + 4 gc). The first C channels are the input and become the output; the others are
            overwritten.
        tokens: How many tokens to compute at a time. Does not change the result.
    """
    batch, height, width, _ = features.shape
    done = 0
    for k in range(1, 6):
        block: SwinBlock = getattr(group, f"swin{k}")
        w, shift = block.window_size, block.shift
        at_most = max(1, tokens // (w * w * max(1, batch)))
        end = group.dim + (k - 1) * group.growth
        # No other window reads what a window's tokens are written to: block 5, which replaces the input, has no
        # shift, and the others write channels that no block has read yet
        target = features[..., end : end + group.growth] if k < 5 else features[..., : group.dim]
        weights = prepared_weights(group, k, features, at_most * w * w * batch)
        masks = shift_masks(w, shift, features.device, features.dtype) if shift else None
        on_cpu = features.device.type == "cpu"
        for area in window_areas(height // w, width // w, shift > 0, at_most, few_sizes=on_cpu):
            mask = masks[area.kind, None] if masks is not None and area.kind else None
            windows = read_windows(features[..., :end], area, w, shift)
            write_windows(target, _run_block(group, k, windows, weights, mask), area, w, shift)
            done += area.rows * area.columns * w * w
            progress.report(done / (5 * height * width))


def _shallow(network: "DRCT", centred: Tensor, region: Region) -> Tensor:
    """Compute a region of the shallow features of a centred image: (B, C, region.height, region.width)."""
    size = (centred.shape[2], centred.shape[3])
    if region == Region(0, 0, *size):
        return network.conv_first(centred)
    return convolve(network.conv_first, read(centred, region.grow(1)), region, size)


class _Reconstruction:
    """The layers after the body, for any region of the enlarged image.

    Args:
        network: The network.
        centred: Its input, centred: (B, in_chans, H, W).
        body: Deep features: (B, H, W, C).
    """

    def __init__(self, network: "DRCT", centred: Tensor, body: Tensor) -> None:
        self.network, self.centred, self.body = network, centred, body
        upsample: Any = network.upsample
        self.stages = [(upsample[i], upsample[i + 1].upscale_factor) for i in range(0, len(upsample), 2)]
        self.sizes = [(body.shape[1], body.shape[2])]  # before and after each stage
        for _, factor in self.stages:
            height, width = self.sizes[-1]
            self.sizes.append((height * factor, width * factor))

    def image(self, region: Region) -> Tensor:
        """Return a region of the result: (B, in_chans, region.height, region.width)."""
        last = len(self.stages)
        return self._convolved(self.network.conv_last, lambda r: self._upsampled(last, r), region, self.sizes[last])

    def _upsampled(self, count: int, region: Region) -> Tensor:
        """Return a region of the features after the first stages of the upsampler."""
        if count == 0:
            conv: Any = self.network.conv_before_upsample[0]
            return self.network.conv_before_upsample[1](self._convolved(conv, self._deep, region, self.sizes[0]))
        conv, factor = self.stages[count - 1]
        source = region.reduce(factor)
        x = self._convolved(conv, lambda r: self._upsampled(count - 1, r), source, self.sizes[count - 1])
        x = F.pixel_shuffle(x, factor)
        return region.relative_to(source.enlarge(factor)).of(x)

    def _deep(self, region: Region) -> Tensor:
        """Return a region of deep plus shallow features, with zeros beyond the image."""
        conv = self.network.conv_after_body
        shallow = _shallow(self.network, self.centred, region)
        if isinstance(conv, nn.Conv2d):
            return self._convolved(conv, self._normalized, region, self.sizes[0]) + shallow
        return self._normalized(region) + shallow

    def _normalized(self, region: Region) -> Tensor:
        """Return a region of the normalized deep features, with zeros beyond the image."""
        inside = region.clip(*self.sizes[0])
        return pad(self.network.norm(inside.of_tokens(self.body)).permute(0, 3, 1, 2), inside, region)

    @staticmethod
    def _convolved(conv: nn.Conv2d, source: Any, region: Region, size: tuple[int, int]) -> Tensor:
        if region == Region(0, 0, *size):
            return conv(source(region))
        return convolve(conv, source(region.grow(1)), region, size)


# -------------------------------------------------------------------------------------------------------------- blocks


def _run_block(group: "DenseGroup", k: int, x: Tensor, weights: BlockWeights, mask: Tensor | None) -> Tensor:
    """Run block k of a group and what follows it on windows: (B, n, N, C + (k-1) gc) -> (B, n, N, gc or C).

    Args:
        group: The group.
        k: Number of the block, from 1.
        x: Windows.
        weights: Prepared weights of the block.
        mask: (1 or n, N, N), added to the logits, or None.

    Returns:
        What the block adds to the dense features; of the fifth block, the output of the group.
    """
    from drct.archs.drct_arch import DENSE_SCALE, DENSE_SLOPE  # which imports this module

    block: SwinBlock = getattr(group, f"swin{k}")
    attended = x + block.drop_path(_attend(block, x, weights, mask))
    new = _adjusted_mlp(block, attended, weights)
    return F.leaky_relu(new, DENSE_SLOPE) if k < 5 else new * DENSE_SCALE + x[..., : group.dim]


def _attend(block: "SwinBlock", x: Tensor, weights: BlockWeights, mask: Tensor | None) -> Tensor:
    """Attention of the normalized windows: (B, n, N, C) -> (B, n, N, C)."""
    attn = block.attn
    qkv = _linear_of_norm(x, block.norm1, weights.qkv)
    q, k, v = rearrange(qkv, "b n t (three h d) -> three (b n) h t d", three=3, h=attn.num_heads)
    out = attention(q, k, v, weights.bias, mask, attn.attn_drop.p if attn.attn_drop.training else 0.0)
    out = rearrange(out, "(b n) h t d -> b n t (h d)", b=x.shape[0])
    return attn.proj_drop(linear(out, *weights.proj))


def _adjusted_mlp(block: "SwinBlock", x: Tensor, weights: BlockWeights) -> Tensor:
    """The 1x1 convolution after a block, of the MLP added to its input: (B, n, N, C) -> (B, n, N, gc or C)."""
    if block.mlp.drop.training and block.mlp.drop.p:  # dropout comes between the two layers that make one product
        return linear(x + block.drop_path(block.mlp(block.norm2(x))), *weights.adjust)
    if torch.is_grad_enabled():
        through_mlp = linear_of(F.gelu, _linear_of_norm(x, block.norm2, weights.fc1), *weights.adjusted_fc2)
    else:
        through_mlp = linear(linear(block.norm2(x), *weights.fc1, gelu=True), *weights.adjusted_fc2)
    return linear(x, *weights.adjust) + block.drop_path(through_mlp)


def _linear_of_norm(x: Tensor, norm: nn.Module, product: Product) -> Tensor:
    """Apply a linear layer to normalized tokens, of which training keeps only x."""
    if type(norm) is not nn.LayerNorm:  # a norm_layer of one's own
        return linear(norm(x), *product)

    def normalized(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)

    # Not `parameters()`: the replicas of DataParallel have none
    return linear_of(normalized, x, *product, *(p for p in (norm.weight, norm.bias) if p is not None))


# --------------------------------------------------------------------------------------------------------------- costs


def tokens_at_a_time(device: torch.device) -> int:
    """Return how many tokens a block gets at a time in inference."""
    return CPU_TOKENS if device.type == "cpu" else GPU_TOKENS


def dense_channels(network: "DRCT") -> int:
    """Return the channels of the widest feature map, the input of a group's last block."""
    groups: Any = network.layers
    return max(group.swin5.dim for group in groups)


def max_heads(network: "DRCT") -> int:
    """Return the largest number of attention heads of the network's groups."""
    groups: Any = network.layers
    return max(group.swin1.attn.num_heads for group in groups)


def memory_needed(network: "DRCT", height: int, width: int, dtype: torch.dtype, device: torch.device) -> int:
    """Estimate the bytes that inference on one image needs at its peak besides weights and image, rather too many.

    Args:
        network: The network.
        height, width: Size of the image, in pixels.
        dtype: Dtype of the computation: float32, or that of autocast.
        device: Where it is computed.
    """
    from drct.archs.drct_arch import UPSAMPLER_CHANNELS  # which imports this module

    window = network.window_size
    height, width = (-(-side // window) * window for side in (height, width))
    channels = dense_channels(network)
    tokens = max(min(tokens_at_a_time(device), height * width), window**2)
    block = 8 * channels * tokens  # queries, keys and values are three of these, the hidden layer of the MLP two
    if device.type == "cpu" and dtype == torch.bfloat16:  # attention matrices of all windows at a time, three times
        block += 3 * tokens * window**2 * max_heads(network)
    if not takes_over(network):  # the definition: all windows of a block at a time, attention matrices three times
        block = height * width * (8 * channels + 3 * window**2 * max_heads(network))
    tile = (tile_side(height, width, tokens) + TILE_HALO) ** 2
    tile *= 5 * UPSAMPLER_CHANNELS * network.upscale**2 // 2  # of the largest feature maps there are about 2.5
    image = network.in_chans * height * width * 4
    tensors = (height * width * channels + max(block, tile)) * dtype.itemsize + image * (2 + network.upscale**2)
    prepared = sum(p.nbytes for p in network.parameters())  # padded by a few percent
    # Not all memory that is freed is used again
    return int(1.3 * tensors + 1.2 * prepared) + 64 * 2**20


def operations(network: "DRCT", height: int, width: int) -> int:
    """Count the floating point operations that the definition takes for one image, two for each term of a product.

    This is what `torch.utils.flop_counter` counts; the padding of heads and tiles is left out.

    Args:
        network: The network.
        height, width: Size of the image, in pixels.
    """
    return _operations_by_part(network, height, width).total()


def _operations_by_part(network: "DRCT", height: int, width: int) -> Counter[str]:
    """Count operations by the parts of the network that its attributes name."""
    area = network.window_size**2
    pixels = -(-height // network.window_size) * -(-width // network.window_size) * area
    counts: Counter[str] = Counter()
    for name, module in network.named_modules():  # in the order of computation
        part = name.split(".")[0]
        if isinstance(module, nn.Linear | nn.Conv2d):
            counts[part] += 2 * pixels * module.weight.numel()
        if isinstance(module, nn.Linear) and name.endswith("attn.qkv"):
            counts[part] += 4 * pixels * area * module.in_features  # queries with keys, weights with values
        elif isinstance(module, nn.PixelShuffle):
            pixels *= module.upscale_factor**2
    return counts


def _reconstruction_share(network: "DRCT") -> float:
    """Estimate the share of the time that the layers after the body take."""
    counts = _operations_by_part(network, network.window_size, network.window_size)
    body = counts["layers"] * BLOCK_COST
    return 1 - body / (counts.total() - counts["layers"] + body)
