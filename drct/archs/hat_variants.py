"""The named HATs, and the arguments of a HAT from the names and shapes of its weights."""

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch import Tensor

from drct.archs.hat_arch import HAT
from drct.archs.variants import looks_like, ratio_of, scale_of

DEFAULTS = {name: parameter.default for name, parameter in signature(HAT).parameters.items()}
# Arguments of the named networks; those not given have their defaults
VARIANTS: dict[str, dict[str, Any]] = {
    "HAT-S": {"embed_dim": 144, "compress_ratio": 24, "squeeze_factor": 24},
    "HAT": {"embed_dim": 180, "compress_ratio": 3, "squeeze_factor": 30},
    "HAT-L": {"depths": (6,) * 12, "num_heads": (6,) * 12},
}
# Arguments that determine the variant
SHAPE = (
    *("embed_dim", "depths", "num_heads", "window_size", "compress_ratio", "squeeze_factor", "overlap_ratio"),
    *("mlp_ratio", "qkv_bias", "ape", "patch_norm", "resi_connection"),
)
MARK = "layers.0.residual_group.overlap_attn.relative_position_bias_table"  # that only weights of a HAT have


def hat_options(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments with which `HAT` makes the network of a state dict.

    Arguments that leave no trace in the weights get their defaults: `conv_scale`, `img_range`, `qk_scale`, the dropout
    rates and, without `ape`, `img_size`.

    Raises:
        ValueError: if these are not weights of a HAT.
    """
    if MARK not in weights or "conv_first.weight" not in weights:
        raise ValueError(f"not weights of a HAT: {looks_like(weights)}")
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    group, block = "layers.{}.residual_group", "layers.0.residual_group.blocks.0"
    groups = len({name.split(".")[1] for name in weights if name.startswith("layers.")})
    blocks = {name.rsplit(".attn.qkv.", 1)[0] for name in weights if ".blocks." in name and ".attn.qkv." in name}
    try:
        dim, in_chans = shapes["conv_first.weight"][:2]
        window = (math.isqrt(shapes[f"{block}.attn.relative_position_bias_table"][0]) + 1) // 2
        overlap = math.isqrt(shapes[MARK][0]) + 1 - 2 * window
        return {
            "img_size": _img_size(shapes, window),
            "in_chans": in_chans,
            "embed_dim": dim,
            "depths": [sum(name.startswith(f"{group.format(i)}.blocks.") for name in blocks) for i in range(groups)],
            "num_heads": [
                shapes[f"{group.format(i)}.overlap_attn.relative_position_bias_table"][1] for i in range(groups)
            ],
            "window_size": window,
            "compress_ratio": _divisor(dim, shapes[f"{block}.conv_block.cab.0.weight"][0]),
            "squeeze_factor": _divisor(dim, shapes[f"{block}.conv_block.cab.3.attention.1.weight"][0]),
            "overlap_ratio": ratio_of([(overlap, window)]),
            "mlp_ratio": ratio_of([shapes[f"{block}.mlp.fc1.weight"]]),
            "qkv_bias": f"{block}.attn.qkv.bias" in shapes,
            "ape": "absolute_pos_embed" in shapes,
            "patch_norm": "patch_embed.norm.weight" in shapes,
            "upscale": scale_of(shapes),
            "upsampler": "pixelshuffle" if "conv_last.weight" in shapes else "",
            "resi_connection": "1conv" if "conv_after_body.weight" in shapes else "identity",
        }
    except KeyError as error:
        raise ValueError(f"weights of a HAT, but incomplete: there is no {error}") from error
    except (IndexError, OverflowError, ValueError, ZeroDivisionError) as error:
        raise ValueError("weights of a HAT, but of shapes that no HAT has") from error


def _img_size(shapes: Mapping[str, tuple[int, ...]], window: int) -> int:
    if "absolute_pos_embed" in shapes:
        return math.isqrt(shapes["absolute_pos_embed"][1])
    return max(DEFAULTS["img_size"], 2 * window)


def _divisor(dim: int, hidden: int) -> float:
    """Return the ratio, a whole number where one will do, with which hidden = int(dim // ratio)."""
    whole = dim // hidden
    if whole and dim // whole == hidden:
        return whole
    ratio = dim / hidden
    return ratio if int(dim // ratio) == hidden else math.nextafter(ratio, 0)


def hat_variant(options: Mapping[str, Any]) -> str:
    """Return the name of the HAT with these arguments, at any scale, or a description if it has no name."""
    shape = {key: _comparable(options.get(key, DEFAULTS[key])) for key in SHAPE}
    for name, arguments in VARIANTS.items():
        if shape.items() <= {key: _comparable(value) for key, value in (DEFAULTS | arguments).items()}.items():
            return name
    return (
        f"a HAT of {len(shape['num_heads'])} groups, {shape['embed_dim']} channels, compression by "
        f"{shape['compress_ratio']:g}, windows of {shape['window_size']}x{shape['window_size']}"
    )


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
