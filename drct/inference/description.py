"""Describing weight files, ONNX models and programs of torch.export, and the cost of an image with each."""

import json
import zipfile
from pathlib import Path
from typing import Any, cast

import torch

from drct.archs.execution import feature_channels, logits_per_token, memory_needed, operations
from drct.archs.families import FAMILIES, Family, family_of
from drct.archs.frame import UPSAMPLER_CHANNELS, Frame
from drct.errors import DRCTError
from drct.files import expanded
from drct.inference.card import card_in
from drct.inference.export import INSTALL
from drct.inference.loaded import LoadedNetwork
from drct.inference.weights import needs_no_options, read_network
from drct.runtime import checkpoint
from drct.runtime.weight_files import find_weights, is_on_hub


def describe(name: str, width: int, height: int, network: str | None = None) -> dict[str, Any]:
    """Describe a file, folder or named weights, and their cost for an image of a size in pixels.

    `network` is an option file that names the architecture of weights, where they do not tell.

    Returns:
        Facts by name, as JSON can hold them. 'operations' are those of `execution.operations`; 'memory' is about what
        inference on the CPU needs besides the loaded network, in bytes.

    Raises:
        DRCTError: if the file is of another kind; the message says of which.
    """
    path = expanded(name) if is_on_hub(name) else find_weights(name)
    if path.is_file() and path.suffix.lower() in (".onnx", ".pt2"):
        needs_no_options(network, name)
    if path.is_file() and path.suffix.lower() == ".onnx":
        return {"file": name, **_describe_onnx(path, width, height)}
    if path.is_file() and path.suffix.lower() == ".pt2":
        return {"file": name, **_describe_program(path, width, height)}
    return {"file": name, **_describe_weights(name, width, height, network)}


def _describe_weights(name: str, width: int, height: int, options: str | None) -> dict[str, Any]:
    loaded = read_network(name, options)
    source, entry = loaded.source, loaded.entry
    found: dict[str, Any] = {"kind": "weights"}
    if loaded.kind:
        found |= _describe_other(loaded)
    else:
        network = cast(Frame, loaded.network)
        dtypes, cpu = {"fp32": torch.float32, "bf16": torch.bfloat16}, torch.device("cpu")
        memory = {name: memory_needed(network, height, width, dtype, cpu) for name, dtype in dtypes.items()}
        found |= _describe_network(network, width, height) | {"memory": memory}
    if isinstance(source, str):
        return found
    path = source / "model.safetensors" if source.is_dir() else source
    content = checkpoint.load(path)
    weights = content.get(entry, content) if entry else content
    metadata = checkpoint.metadata_of(content, path)
    if not loaded.kind:
        found["layout"] = "original" if any("relative_position_index" in key for key in weights) else "compact"
    end = "weight" if loaded.kind else "qkv.weight"
    types = {str(value.dtype).removeprefix("torch.") for key, value in weights.items() if key.endswith(end)}
    return found | {
        "path": str(path),
        "bytes": path.stat().st_size,
        "entries": [key for key in dict.fromkeys(("params", "params_ema", entry)) if key in content],
        "entry": entry,
        "precision": "/".join(sorted(types)),
        "metadata": metadata,
    }


def _describe_other(loaded: LoadedNetwork) -> dict[str, Any]:
    """Describe a network of no family, and the sizes of images that it takes."""
    traits = loaded.traits
    return {
        "variant": loaded.kind,
        "scale": traits.scale,
        "has_head": True,
        "channels": traits.channels,
        "parameters": sum(p.numel() for p in loaded.network.parameters()),
        "sizes": {
            "only": list(traits.only_size) if traits.only_size else None,
            "multiple_of": traits.window,
            "minimum": traits.minimum,
            "square": traits.square,
        },
    }


def _describe_network(network: Frame, width: int, height: int) -> dict[str, Any]:
    family = cast(Family, family_of(network))
    options = family.options(network.state_dict())
    return {
        "variant": family.variant(options),
        "scale": network.upscale,
        "has_head": bool(network.upsampler),
        "parameters": sum(p.numel() for p in network.parameters()),
        "options": options,
        "size": [width, height],
        "operations": operations(network, height, width),
    }


def _describe_onnx(path: Path, width: int, height: int) -> dict[str, Any]:
    try:
        import onnx
    except ImportError as error:
        raise DRCTError(f"{path}: reading ONNX needs the package onnx: {INSTALL}") from error
    try:
        model = onnx.load(str(path), load_external_data=False)
        if not model.graph.node:
            raise ValueError("it has no nodes")
    except Exception as error:  # protobuf raises errors of its own
        raise DRCTError(f"{path} is damaged or not an ONNX model. Download or copy it again.") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}

    def about(value: Any) -> dict[str, Any]:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        shape = [side.dim_param or side.dim_value for side in tensor.shape.dim]
        return {"name": value.name, "type": dtype.name, "shape": shape}

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type in floats]
    found = {
        "kind": "onnx",
        "path": str(path),
        "bytes": path.stat().st_size,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "inputs": [about(value) for value in model.graph.input],
        "outputs": [about(value) for value in model.graph.output],
        "nodes": len(model.graph.node),
        "parameters": sum(torch.Size(tensor.dims).numel() for tensor in weights),
        "metadata": metadata,
    }
    return found | (_describe_recorded(path, metadata, width, height) or _describe_tried(path))


def _describe_tried(path: Path) -> dict[str, Any]:
    """Describe an ONNX model of another program by what it does with small images, or say why it does nothing."""
    try:
        found = _describe_other(read_network(path))
    except DRCTError as error:
        return {"refused": str(error)}
    del found["parameters"]  # ONNX Runtime does not show them
    return found


def _describe_program(path: Path, width: int, height: int) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as file:
            names = [name for name in file.namelist() if name.endswith("drct.json")]
            metadata = json.loads(file.read(names[0])) if names else {}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DRCTError(f"{path} is damaged or not a program of torch.export. Download or copy it again.") from error
    found = {"kind": "torch-export", "path": str(path), "bytes": path.stat().st_size, "metadata": metadata}
    return found | _describe_recorded(path, metadata, width, height)


def _describe_recorded(path: Path, metadata: dict[str, str], width: int, height: int) -> dict[str, Any]:
    """Describe the network by the metadata that `drct export` writes; return {} for files of other programs."""
    if "drct_config" not in metadata:
        return {}
    try:
        kind = next(family.network for family in FAMILIES if family.name == metadata.get("network", "DRCT"))
        with torch.device("meta"):
            network = kind(**json.loads(metadata["drct_config"]))
    except (StopIteration, ValueError, TypeError) as error:
        raise DRCTError(f"{path}: its drct_config is damaged: {error}") from error
    precision = metadata.get("precision", "fp32")
    memory = {precision: _memory_of_all_windows(network, width, height)}
    return _describe_network(network, width, height) | {"memory": memory, "precision": precision}


def _memory_of_all_windows(network: Frame, width: int, height: int) -> int:
    """Estimate the bytes for computing all windows at a time and the whole image, as recorded programs do.

    Measured in ONNX Runtime: three times all attention matrices or 3.5 times the upscaled features, whichever is more,
    and eight times the dense features.
    """
    window = network.window_size
    pixels = -(-height // window) * -(-width // window) * window**2
    attention = 3 * logits_per_token(network)
    upscaled = 7 * UPSAMPLER_CHANNELS * network.upscale**2 // 2
    dense = 8 * feature_channels(network)
    return 4 * pixels * (max(attention, upscaled) + dense)


def as_text(found: dict[str, Any]) -> str:
    """Format a description as a few lines."""
    lines = []
    if "variant" in found:
        head = f"upscales {found['scale']} times" if found["has_head"] else "without reconstruction head"
        lines.append(("network", f"{found['variant']}, {head}, {found['parameters']:,} parameters"))
    if "sizes" in found:
        lines.append(("takes", _sizes(found["channels"], **found["sizes"])))
    metadata = found.get("metadata", {})
    if "drct_version" in metadata:
        keys = ("drct_version", "made_from", "entry")
        version, source, entry = (" ".join(metadata.get(key, "").split()) for key in keys)
        origin = f"drct export {version} of {source}{f', {entry}' if entry else ''}"
        lines.append(("made by", origin if source else f"drct train {version}"))
        lines += [(key, " ".join(text.split())) for key, text in card_in(metadata).items()]
    elif found["kind"] != "weights":
        lines.append(("made by", found.get("producer") or "another program"))
    if "refused" in found:
        lines.append(("refused", found["refused"]))
    for label in ("inputs", "outputs"):
        for tensor in found.get(label, []):
            shape = " x ".join(map(str, tensor["shape"]))
            lines.append((label[:-1], f"{tensor['name']}, {tensor['type']}, {shape}"))
    lines.append(("file", ", ".join(_about_file(found))))
    if "operations" in found:
        memory = ", ".join(f"{amount / 1e9:.2f} GB in {name}" for name, amount in found["memory"].items())
        size = "x".join(map(str, found["size"]))
        lines.append((f"for {size}", f"{found['operations'] / 1e9:.2f} GFLOP; on the CPU about {memory}"))
    column = max(11, *(len(label) for label, _ in lines)) + 2
    return "\n".join([found["file"], *(f"  {label:{column}}{text}" for label, text in lines)])


def _sizes(channels: int, only: list[int] | None, multiple_of: int, minimum: int, square: bool) -> str:
    """Say which images a network takes; others are padded or computed in tiles."""
    if only:
        return f"{channels} channels, {only[1]}x{only[0]} pixels only: others in tiles"
    limits = [f"multiples of {multiple_of} pixels"] * (multiple_of > 1)
    limits += [f"{minimum} pixels or more"] * (minimum > multiple_of) + ["squares only"] * square
    return f"{channels} channels, {', '.join(limits) or 'any size'}"


def _about_file(found: dict[str, Any]) -> list[str]:
    if "path" not in found:
        return ["on the Hugging Face Hub"]
    parts = [found["path"]] if found["path"] != found["file"] else []
    parts.append(f"{found['bytes'] / 1e6:.1f} MB")
    if "opset" in found:
        parts += [f"opset {version} of {domain}" for domain, version in found["opset"].items()]
        parts.append(f"{found['nodes']:,} nodes")
    if "precision" in found:
        parts.append(found["precision"])
    if "layout" in found:
        parts.append(f"{found['layout']} layout")
    if found.get("entries"):
        which = f", of which {found['entry']} is read" if len(found["entries"]) > 1 else ""
        parts.append(f"{' and '.join(found['entries'])}{which}")
    return parts
