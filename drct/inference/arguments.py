"""The arguments of the network in a weight file: from its metadata or its shapes, checked before memory is taken.

Weight files come from anywhere. Every function here raises a `ValueError` that says what is wrong.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from drct.archs.families import Family

LARGEST_WINDOW = 64  # attention takes memory with the fourth power of it; also by how much that of keys may be larger
LARGEST_SCALE = 64
LARGEST_MASK = 2**26  # values of the attention mask of images of img_size, which state dicts of DRCT hold: 256 MB
PRESENT = {  # tensors that are there or not as an argument says
    "upsampler": "conv_last.weight",
    "resi_connection": "conv_after_body.weight",
    "ape": "absolute_pos_embed",
    "patch_norm": "patch_embed.norm.weight",
}
MASK = "layers.0.swin2.attn_mask"  # of a DRCT
# Last parts of the names of what is computed, not loaded
COMPUTED = ("attn_mask", "relative_position_index", "relative_position_index_SA", "relative_position_index_OCA")


def network_arguments(family: Family, weights: Mapping[str, Tensor], config: str | None) -> dict[str, Any]:
    """Return the arguments of the network of a state dict.

    A network made with them takes memory in proportion to the state dict.

    Args:
        family: The kind of network.
        weights: The state dict, of plain tensors.
        config: Arguments as JSON, as `drct export` writes them; None if there are none, for those of the shapes.
    """
    found = family.options(weights)
    arguments = found if config is None else _arguments_in(config, family.name, family.defaults | found)
    for key in ("embed_dim", "gc", "window_size", "upscale", "in_chans"):
        if found.get(key, 1) < 1:
            raise _no_shapes_of(family)
    if differing := list(_contradictions(family, family.defaults | arguments, found, weights)):
        raise ValueError(f"its metadata contradicts its weights: {', '.join(differing[:3])}. Export it again")
    _check_amounts(family, family.defaults | arguments, weights)
    return arguments


def _no_shapes_of(family: Family) -> ValueError:
    return ValueError(f"weights of a {family.name}, but of shapes that no {family.name} has")


def _arguments_in(config: str, kind: str, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return checked arguments from JSON; those that are as expected need no check, which takes a while to import."""
    try:
        arguments = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise ValueError("its metadata is damaged: drct_config is not JSON") from error
    if not isinstance(arguments, dict):
        raise ValueError("its metadata is damaged: drct_config holds no arguments by name")
    arguments.pop("type", None)
    if all(key in expected and _as_json(value) == _as_json(expected[key]) for key, value in arguments.items()):
        return arguments
    from pydantic import ValidationError

    from drct.schema.options import NETWORKS

    try:
        NETWORKS[kind].model_validate({"type": kind, **arguments})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        must_be = first["msg"].removeprefix("Input should be ")
        raise ValueError(f"{_said(first['loc'][0], first['input'])}, which must be {must_be}") from None
    for key, value in arguments.items():
        if isinstance(value, float) and not abs(value) < 1e6:
            raise ValueError(f"{_said(key, value)}, which no network has")
    return arguments


def _as_json(value: object) -> str:
    return json.dumps(value, default=repr)  # which tells 1, 1.0 and true apart


def _said(key: object, value: object) -> str:
    text = repr(value)
    return f"its metadata says {key} is {text if len(text) <= 60 else f'{text[:60]}...'}"


def _contradictions(
    family: Family, arguments: Mapping[str, Any], found: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> Iterator[str]:
    """Yield in a few words where arguments are not those that follow from the shapes of the weights."""
    layers = LAYERS[family.name]
    for key, name in (*PRESENT.items(), ("qkv_bias", layers.qkv_bias)):
        if arguments[key] != found[key]:
            yield f"{key} is {arguments[key]!r}, but there is {'a' if name in weights else 'no'} {name}"
    for key in ("in_chans", "embed_dim", "gc", *["upscale"] * bool(found["upsampler"])):
        if key in found and arguments[key] != found[key]:
            yield f"{key} is {arguments[key]}, not {found[key]}"
    if len(arguments["depths"]) != len(found["depths"]):
        yield f"depths has {len(arguments['depths'])} entries, not {len(found['depths'])}"
    for key in ("num_heads", *["depths"] * layers.depths_count_blocks):
        if list(arguments[key]) != found[key]:
            yield f"{key} is {_short(arguments[key])}, not {_short(found[key])}"
    height, width = _tokens(arguments)
    window = min(arguments["window_size"], height, width)
    if window != found["window_size"]:
        yield f"window_size is {window}, not {found['window_size']}"
    for key in ("compress_ratio", "squeeze_factor"):
        if key in found and found["embed_dim"] // arguments[key] != found["embed_dim"] // found[key]:
            yield f"{key} is {arguments[key]}, not {found[key]:g}"
    if "overlap_ratio" in found and int(window * arguments["overlap_ratio"]) != int(window * found["overlap_ratio"]):
        yield f"overlap_ratio is {arguments['overlap_ratio']}, not {found['overlap_ratio']:g}"
    widths = [found["embed_dim"] + k * found.get("gc", 0) for k in range(3)]
    if any(int(w * arguments["mlp_ratio"]) != int(w * found["mlp_ratio"]) for w in widths):
        yield f"mlp_ratio is {arguments['mlp_ratio']}, not {found['mlp_ratio']:g}"
    mask, position = weights.get(MASK), weights.get("absolute_pos_embed")
    windows = (height // max(1, window)) * (width // max(1, window))
    if (mask is not None and mask.shape[:1] != (windows,)) or (
        position is not None and position.shape[1] != height * width
    ):
        yield f"img_size is {arguments['img_size']!r}, but they are for images of another size"


def _short(values: Any) -> str:
    return str(list(values)) if len(values) <= 12 else f"{list(values[:3])} and {len(values) - 3} more"


def _tokens(arguments: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width of the images that the network is trained on, in tokens."""
    sides = []
    for key in ("img_size", "patch_size"):
        value = arguments[key]
        sides.append([value, value] if isinstance(value, int) else list(value))
        if len(sides[-1]) != 2:
            raise ValueError(f"{_said(key, value)}, which must be a side, or a height and a width")
    return sides[0][0] // sides[1][0], sides[0][1] // sides[1][1]


def _check_amounts(family: Family, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Check that the network will be no larger than the weights are, and its tables of a reasonable size."""
    dim, window, heads = arguments["embed_dim"], arguments["window_size"], arguments["num_heads"]
    height, width = _tokens(arguments)
    window = min(window, height, width)
    for key, value, largest in (
        ("window_size", window, LARGEST_WINDOW),
        ("upscale", arguments["upscale"], LARGEST_SCALE),
    ):
        if value > largest:
            raise ValueError(f"its {key} would be {value}, where at most {largest} makes sense")
    if window < 1 or not all(0 < count <= dim for count in heads):
        raise _no_shapes_of(family)
    if family.name == "DRCT" and height * width * window**2 > LARGEST_MASK:
        raise ValueError(f"its img_size would be {arguments['img_size']}, which is too large for windows of {window}")
    overlap = int(window * arguments.get("overlap_ratio", 0))
    if not 0 <= overlap <= LARGEST_WINDOW:
        raise ValueError(f"its windows of keys would be larger by {overlap} than windows of {window}")
    parameters = {name: tensor for name, tensor in weights.items() if not name.endswith(COMPUTED)}
    for name, shape in LAYERS[family.name].shapes(arguments):
        actual = list(parameters[name].shape) if name in parameters else None
        if actual != shape:
            problem = f"there is no {name}" if actual is None else f"{name} is {actual}, not {shape}"
            raise ValueError(f"holds weights that do not fit a {family.name}: {problem}")
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in parameters.values()}
    if sum(tensor.numel() * tensor.element_size() for tensor in parameters.values()) > sum(stored.values()):
        raise ValueError(f"its tensors share their values, as those of no {family.name} do. Save it again")


def _shapes_of_drct(arguments: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
    for i in range(len(arguments["num_heads"])):
        for k in range(1, 6):
            width = arguments["embed_dim"] + (k - 1) * arguments["gc"]
            hidden = int(width * (arguments["mlp_ratio"] if k <= 3 else 1))
            yield f"layers.{i}.swin{k}.attn.qkv.weight", [3 * width, width]
            yield f"layers.{i}.swin{k}.mlp.fc1.weight", [hidden, width]


def _shapes_of_hat(arguments: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
    dim = arguments["embed_dim"]
    compressed, squeezed = (int(dim // arguments[key]) for key in ("compress_ratio", "squeeze_factor"))
    for i, depth in enumerate(arguments["depths"]):
        group = f"layers.{i}.residual_group"
        for block in (*(f"{group}.blocks.{j}" for j in range(depth)), f"{group}.overlap_attn"):
            yield f"{block}.{'attn.' * ('blocks' in block)}qkv.weight", [3 * dim, dim]
            yield f"{block}.mlp.fc1.weight", [int(dim * arguments["mlp_ratio"]), dim]
            if "blocks" in block:
                yield f"{block}.conv_block.cab.0.weight", [compressed, dim, 3, 3]
                yield f"{block}.conv_block.cab.3.attention.1.weight", [squeezed, dim, 1, 1]
        if arguments["resi_connection"] == "1conv":
            yield f"layers.{i}.conv.weight", [dim, dim, 3, 3]


@dataclass(frozen=True)
class _Layers:
    """What the weights of a family are called, and their shapes.

    Attributes:
        qkv_bias: Name of the bias of queries, keys and values in the first block.
        depths_count_blocks: Whether `depths` are numbers of blocks.
        shapes: Yields names and shapes of the largest tensors of each block, which the sizes of all others follow from.
    """

    qkv_bias: str
    depths_count_blocks: bool
    shapes: Callable[[Mapping[str, Any]], Iterator[tuple[str, list[int]]]]


LAYERS = {
    "DRCT": _Layers("layers.0.swin1.attn.qkv.bias", False, _shapes_of_drct),
    "HAT": _Layers("layers.0.residual_group.blocks.0.attn.qkv.bias", True, _shapes_of_hat),
}


def without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove what a training program puts before all names of a network's weights, such as 'generator.'."""
    first = next((name for name in weights if name.endswith(".conv_first.weight")), "")
    prefix = first.removesuffix("conv_first.weight")
    if not prefix or not all(name.startswith(prefix) for name in weights):
        return weights
    return {name.removeprefix(prefix): value for name, value in weights.items()}
