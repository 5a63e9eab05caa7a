"""The named networks, and recognizing which network a state dict belongs to from its names and shapes."""

import math
import re
from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch import Tensor

from drct.archs.drct_arch import DRCT

DEFAULTS = {name: parameter.default for name, parameter in signature(DRCT).parameters.items()}
# Arguments of the named networks; those not given have their defaults
VARIANTS: dict[str, dict[str, Any]] = {
    "DRCT": {"embed_dim": 180},
    "DRCT-C144": {"embed_dim": 144},  # the network of the paper's complexity table
    "DRCT-L": {"depths": (6,) * 12, "num_heads": (6,) * 12},
    "DRCT-XL": {"depths": (6,) * 14, "num_heads": (6,) * 14},
    "DRCT-XS": {
        "embed_dim": 48,
        "gc": 16,
        "depths": (6,) * 4,
        "num_heads": (4,) * 4,
        "window_size": 8,
        "img_size": 32,
    },
}
# Arguments that determine the variant
SHAPE = ("embed_dim", "num_heads", "window_size", "mlp_ratio", "qkv_bias", "ape", "patch_norm", "resi_connection", "gc")
MARK = "layers.0.swin1.attn.relative_position_bias_table"  # that only weights of a DRCT have
# Names found in one kind of network only, the most specific first
OTHERS = {
    "DRCT": r"layers\.0\.swin1\.attn\.relative_position_bias_table",
    "HAT": r"overlap_attn\.",
    "Swin2SR": r"layers\.0\.residual_group\.blocks\.0\.attn\.logit_scale",
    "SwinIR": r"layers\.0\.residual_group\.blocks\.0\.attn\.qkv",
    "DAT": r"layers\.0\.blocks\.0\.attn\.attns",
    "RRDBNet (ESRGAN, Real-ESRGAN)": r"(body\.0\.rdb1\.conv1|sub\.0\.RDB1\.conv1|RRDB_trunk\.0)",
    "RCAN": r"body\.0\.(rcab|body\.0\.body)",
    "EDSR": r"body\.0\.(conv1|body\.0)\.weight",
    "SRVGGNet (Real-ESRGAN compact)": r"body\.0\.weight",
    "a Swin or other vision transformer": r"attn\.qkv",
}


def drct_options(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments with which `DRCT` makes the network of a state dict.

    Arguments that leave no trace in the weights get their defaults: `img_range`, `qk_scale` and the dropout rates; in
    a file without the original's computed entries also `img_size`, which matters only to networks trained on images
    of a single window.

    Raises:
        ValueError: if these are not weights of a DRCT; the message says what they look like.
    """
    if MARK not in weights or "conv_first.weight" not in weights:
        raise ValueError(f"not weights of a DRCT: {looks_like(weights)}")
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    groups = len({name.split(".")[1] for name in weights if name.startswith("layers.")})
    try:
        dim, in_chans = shapes["conv_first.weight"][:2]
        table = "layers.{}.swin1.attn.relative_position_bias_table"
        window = (math.isqrt(shapes[table.format(0)][0]) + 1) // 2
        return {
            "img_size": _img_size(shapes, window),
            "in_chans": in_chans,
            "embed_dim": dim,
            "depths": [6] * groups,
            "num_heads": [shapes[table.format(i)][1] for i in range(groups)],
            "window_size": window,
            "mlp_ratio": ratio_of([shapes[f"layers.0.swin{k}.mlp.fc1.weight"] for k in (1, 2, 3)]),
            "qkv_bias": "layers.0.swin1.attn.qkv.bias" in shapes,
            "ape": "absolute_pos_embed" in shapes,
            "patch_norm": "patch_embed.norm.weight" in shapes,
            "upscale": scale_of(shapes),
            "upsampler": "pixelshuffle" if "conv_last.weight" in shapes else "",
            "resi_connection": "1conv" if "conv_after_body.weight" in shapes else "identity",
            "gc": shapes["layers.0.adjust1.weight"][0],
        }
    except KeyError as error:
        raise ValueError(f"weights of a DRCT, but incomplete: there is no {error}") from error
    except (IndexError, OverflowError, ValueError, ZeroDivisionError) as error:
        raise ValueError("weights of a DRCT, but of shapes that no DRCT has") from error


def _img_size(shapes: Mapping[str, tuple[int, ...]], window: int) -> int:
    if "absolute_pos_embed" in shapes:
        return math.isqrt(shapes["absolute_pos_embed"][1])
    if mask := shapes.get("layers.0.swin2.attn_mask"):
        return math.isqrt(mask[0]) * window  # one entry per window
    as_the_original_saves = "layers.0.swin1.attn.relative_position_index" in shapes
    return window if as_the_original_saves else max(DEFAULTS["img_size"], 2 * window)


def ratio_of(layers: list[tuple[int, ...]]) -> float:
    """Return the ratio of layers of these (hidden, width), where hidden = int(width * ratio)."""
    ratio = max(hidden / width for hidden, width in layers)
    exact = all(int(width * ratio) == hidden for hidden, width in layers)
    return ratio if exact else math.nextafter(ratio, math.inf)


def scale_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the scale of a sub-pixel upsampler from the shapes of its weights."""
    convolutions = [shape for name, shape in shapes.items() if re.fullmatch(r"upsample\.\d+\.weight", name)]
    return math.prod(math.isqrt(shape[0] // shape[1]) for shape in convolutions)


def variant(options: Mapping[str, Any]) -> str:
    """Return the name of the network with these arguments, at any scale, or a description if it has no name."""
    shape = {key: options.get(key, DEFAULTS[key]) for key in SHAPE}
    shape["num_heads"] = tuple(shape["num_heads"])
    for name, arguments in VARIANTS.items():
        if shape.items() <= (DEFAULTS | arguments).items():
            return name
    return (
        f"a DRCT of {len(shape['num_heads'])} groups, {shape['embed_dim']} channels, growth {shape['gc']}, "
        f"windows of {shape['window_size']}x{shape['window_size']}"
    )


def looks_like(weights: Mapping[str, Any]) -> str:
    """Say what a state dict looks like, for an error message."""
    for kind, pattern in OTHERS.items():
        if any(re.search(pattern, str(name)) for name in weights):
            return f"they look like {kind}"
    return f"they have names such as {', '.join(map(str, list(weights)[:3]))}"
