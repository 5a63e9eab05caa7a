"""Running a network in less time and memory than its definition takes, with the same result.

The groups of attention blocks, which know how they are executed (`block_execution.GroupExecution`), run in training on
the whole image at once. In inference they run a few windows at a time within one feature map, the only one that exists
for the whole image, and the convolutions before and after the groups are computed tile by tile.

Letters in shapes: see `drct.archs.frame`.
"""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from drct.archs import gpu_graphs, gpu_switches, merged_upsampler, progress
from drct.archs.block_execution import GroupExecution
from drct.archs.prepared_weights import forget_stale_weights, kept_weights, weights_of
from drct.archs.reconstruction import Reconstruction, shallow_features
from drct.archs.regions import TILE_HALO, autocast_dtype, tile_side, tiles
from drct.archs.swin import Attention
from drct.archs.tracing import is_traced, is_transformed
from drct.archs.upsampler_kernels import FEWEST, UpsamplerKernels, upsampler_kernels

if TYPE_CHECKING:
    from drct.archs.frame import Frame

CPU_TOKENS = 4096  # handed to a block at a time in inference, so that their activations stay in the cache
GPU_TOKENS = 131072
FEWEST_GPU_TOKENS = 4096
BLOCK_COST = 2  # time that an operation of a block takes, where one of the convolutions around them takes 1
POOLED = ".attention."  # in names of layers that run on the mean over the image: HAT's channel attention


# ------------------------------------------------------------------------------------------------------- the decision


def takes_over(network: "Frame") -> bool:
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
    _, *submodules = modules = list(network.modules())  # once, which takes a few milliseconds
    parameters = (p for module in modules for p in module._parameters.values() if p is not None)
    return (
        _structure(submodules) == network.built_structure
        and not any(map(_is_watched, submodules))
        and all(type(p) in (Tensor, nn.Parameter) for p in parameters)
    )


def structure(network: nn.Module) -> list[Any]:
    """Return the classes of all submodules, and the settings of convolutions."""
    _, *submodules = network.modules()
    return _structure(submodules)


def _structure(submodules: list[nn.Module]) -> list[Any]:
    return [
        (m.kernel_size, m.stride, m.padding, m.dilation, m.groups, m.padding_mode) if type(m) is nn.Conv2d else type(m)
        for m in submodules
    ]


def _overrides_parts(network: "Frame") -> bool:
    from drct.archs.frame import Frame  # which imports this module

    for part in ("embed", "reconstruct"):
        if getattr(type(network), part) is not getattr(Frame, part) or part in vars(network):
            return True
    return not _have_execution(network)


def _have_execution(network: "Frame") -> bool:
    """Return whether the class of each group names its execution itself; a subclass may compute something else."""
    return all("execution" in vars(type(group)) for group in network.layers)


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


def run(network: "Frame", x: Tensor) -> Tensor:
    """Compute what `Frame.forward` returns."""
    at_once = torch.is_grad_enabled() or network.absolute_pos_embed is not None
    if at_once or any(module.training for module in network.modules()):
        return _run_at_once(network, x)
    return _run_in_place(network, x)


# ------------------------------------------------------------------------------------------------------------ training


def _run_at_once(network: "Frame", x: Tensor) -> Tensor:
    """Compute the definition, with all windows of a block at a time."""
    shallow = network.conv_first(_channels_last((x - network.mean) * network.img_range))
    features = network.embed(shallow)
    recompute = network.use_checkpoint and torch.is_grad_enabled()
    for group in progress.each(network.layers):
        features = _execution(group).at_once(group, features, recompute)
    return merged_upsampler.reconstruct(network, shallow, features) / network.img_range + network.mean


# ----------------------------------------------------------------------------------------------------------- inference


def _run_in_place(network: "Frame", x: Tensor) -> Tensor:
    """Compute the definition in the memory of the groups' feature map and a few tiles of the reconstruction."""
    tokens = tokens_at_a_time(x.device)
    if not gpu_switches.is_gpu(x.device):
        return _compute_in_place(network, tokens, x)
    forget_stale_weights(network, x)
    compute = partial(_compute_in_place, network, tokens_in_free_memory(network, autocast_dtype(x), x.device))
    if gpu_graphs.is_wanted(x):
        return gpu_graphs.run(network, x, compute)
    gpu_graphs.forget(network)
    return compute(x)


def _compute_in_place(network: "Frame", tokens: int, x: Tensor) -> Tensor:
    """Compute the definition, so many tokens at a time."""
    batch, channels, height, width = x.shape
    whole = list(tiles(height, width, tokens // max(1, batch)))
    centred = _channels_last((x - network.mean) * network.img_range)
    dim = network.embed_dim
    needed = feature_channels(network)
    shape = (batch, height, width, gpu_switches.row_width(needed) if gpu_switches.is_gpu(x.device) else needed)
    features = x.new_empty(shape, dtype=autocast_dtype(x))[..., :needed]
    body = features[..., :dim]
    for tile in whole:
        inside = tile.clip(height, width)
        shallow = shallow_features(network, centred, tile)[..., : inside.height, : inside.width]
        inside.of_tokens(body).copy_(network.embed(shallow))
    groups: Any = network.layers
    kernels = _upsampler_kernels(network, body)
    in_body = 1 - _reconstruction_share(network, kernels) if progress.is_watched() else 1.0
    for i, group in enumerate(groups):
        with progress.span(in_body * (i / len(groups)), in_body * ((i + 1) / len(groups))):
            _execution(group).in_place(group, features, tokens)
    result = x.new_empty((batch, channels, height * network.upscale, width * network.upscale))
    reconstruction = Reconstruction(network, centred, body, kernels)
    for i, tile in enumerate(whole):
        progress.report(in_body + (1 - in_body) * i / len(whole))
        inside = tile.clip(height, width).enlarge(network.upscale)
        part = reconstruction.image(tile)[..., : inside.height, : inside.width]
        inside.of(result).copy_(part / network.img_range + network.mean)
    progress.report(1)
    return result


def _upsampler_kernels(network: "Frame", body: Tensor) -> UpsamplerKernels | None:
    """Return the kernels by which to compute the upsampler at once; None where it is to be computed by its layers."""
    upsample: Any = network.upsample
    if not len(upsample) or min(body.shape[1:3]) < FEWEST or gpu_switches.is_gpu(body.device):
        return None
    layers = [*upsample[::2], network.conv_last]
    make = partial(upsampler_kernels, upsample, network.conv_last, body.dtype)
    return kept_weights(network, "upsampler", weights_of(layers), None, body, make)


def _channels_last(x: Tensor) -> Tensor:
    """Bring an image into the order in which a GPU's convolutions take and give feature maps of tokens."""
    return x.contiguous(memory_format=torch.channels_last) if gpu_switches.is_gpu(x.device) else x


def _execution(group: Any) -> GroupExecution:
    return group.execution


# --------------------------------------------------------------------------------------------------------------- costs


def tokens_at_a_time(device: torch.device) -> int:
    """Return how many tokens a block gets at a time in inference."""
    return CPU_TOKENS if device.type == "cpu" else GPU_TOKENS


def tokens_in_free_memory(network: "Frame", dtype: torch.dtype, device: torch.device) -> int:
    """Return how many tokens a block gets at a time on a GPU: fewer where they would take half of the free memory."""
    tokens = tokens_at_a_time(device)
    if device.type != "cuda":
        return tokens
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + unused
    while tokens > FEWEST_GPU_TOKENS and block_bytes(network, tokens, dtype) > free / 2:
        tokens //= 2
    return tokens


def block_bytes(network: "Frame", tokens: int, dtype: torch.dtype) -> int:
    """Estimate the bytes that a block takes for so many tokens, without attention matrices."""
    # Queries, keys and values are three of these, the hidden layer of the MLP two
    return 8 * feature_channels(network) * tokens * dtype.itemsize


def attentions(network: nn.Module) -> list[Attention]:
    """Return the attention modules of a network."""
    return [module for module in network.modules() if isinstance(module, Attention)]


def feature_channels(network: "Frame") -> int:
    """Return the channels of the feature map that the groups run in."""
    if not _have_execution(network):  # the definition
        return widest_block(network)
    return max(_execution(group).channels(group) for group in network.layers)


def widest_block(network: "Frame") -> int:
    """Return the channels of the widest block."""
    return max(attn.proj.in_features for attn in attentions(network))


def logits_per_token(network: "Frame") -> int:
    """Return the entries of the attention matrices of all heads per token, at most."""
    return max(attn.num_heads * attn.keys for attn in attentions(network))


def memory_needed(network: "Frame", height: int, width: int, dtype: torch.dtype, device: torch.device) -> int:
    """Estimate the bytes that inference on one image needs at its peak besides weights and image, rather too many.

    Args:
        network: The network.
        height, width: Size of the image, in pixels.
        dtype: Dtype of the computation: float32, or that of autocast.
        device: Where it is computed.
    """
    from drct.archs.frame import UPSAMPLER_CHANNELS  # which imports this module

    window = network.window_size
    height, width = (-(-side // window) * window for side in (height, width))
    channels = feature_channels(network)
    tokens = max(min(tokens_at_a_time(device), height * width), window**2)
    block = block_bytes(network, tokens, dtype) // dtype.itemsize
    if device.type == "cpu" and dtype == torch.bfloat16:  # attention matrices of all windows at a time, three times
        block += 3 * tokens * logits_per_token(network)
    if not takes_over(network):  # the definition: all windows of a block at a time, attention matrices three times
        block = height * width * (8 * channels + 3 * logits_per_token(network))
    tile = (tile_side(height, width, tokens) + TILE_HALO) ** 2
    tile *= 5 * UPSAMPLER_CHANNELS * network.upscale**2 // 2  # of the largest feature maps there are about 2.5
    image = network.in_chans * height * width * 4
    tensors = (height * width * channels + max(block, tile)) * dtype.itemsize + image * (2 + network.upscale**2)
    prepared = sum(p.nbytes for p in network.parameters())  # padded by a few percent
    prepared += 32 * height * width  # the order of tokens, with and without a shift
    if device.type != "cpu":  # a bias for each kind of windows
        prepared += 4 * dtype.itemsize * sum(a.num_heads * window**2 * a.keys for a in attentions(network))
    # Not all memory that is freed is used again
    return int(1.3 * tensors + 1.2 * prepared) + 64 * 2**20


def operations(network: "Frame", height: int, width: int) -> int:
    """Count the floating point operations that the definition takes for one image, two for each term of a product.

    This is what `torch.utils.flop_counter` counts; the padding of heads and tiles is left out.

    Args:
        network: The network.
        height, width: Size of the image, in pixels.
    """
    return _operations_by_part(network, height, width).total()


def _operations_by_part(network: "Frame", height: int, width: int) -> Counter[str]:
    """Count operations by the parts of the network that its attributes name."""
    window = network.window_size
    pixels = -(-height // window) * -(-width // window) * window**2
    counts: Counter[str] = Counter()
    for name, module in network.named_modules():  # in the order of computation
        part = name.split(".")[0]
        if isinstance(module, nn.Linear | nn.Conv2d):
            counts[part] += 2 * (1 if POOLED in name else pixels) * module.weight.numel()
        elif isinstance(module, Attention):
            # Queries with keys, weights with values
            counts[part] += 4 * pixels * module.keys * module.proj.in_features
        elif isinstance(module, nn.PixelShuffle):
            pixels *= module.upscale_factor**2
    return counts


def _reconstruction_share(network: "Frame", kernels: UpsamplerKernels | None) -> float:
    """Estimate the share of the time that the layers after the body take, with or without kernels of the upsampler."""
    counts = _operations_by_part(network, network.window_size, network.window_size)
    if kernels is not None:
        counts["upsample"] = 2 * network.window_size**2 * kernels.weight[0, 0].numel()
        del counts["conv_last"]
    body = counts["layers"] * BLOCK_COST
    return 1 - body / (counts.total() - counts["layers"] + body)
