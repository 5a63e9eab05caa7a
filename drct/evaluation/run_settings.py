"""The settings of a test run: its options and what it ran on, as `settings.json` and the page record them."""

import platform
from datetime import datetime
from pathlib import Path
from typing import Any

import basicsr
import cv2
import numpy as np
import torch

from drct.archs.families import name_of
from drct.runtime import distributed
from drct.version import __version__


def run_settings(opt: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the content of `settings.json`: options, device of the network, versions and date."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{device.type.upper()}, threads: {torch.get_num_threads()}"
    if distributed.world_size() > 1:
        hardware += f", in each of {distributed.world_size()} processes"
    return {
        "name": opt["name"],
        "network": name_of(opt["network_g"]),
        "date": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "device": hardware,
        "versions": versions(),
        "options": opt,
    }


def versions() -> dict[str, str]:
    """Return the versions of what the figures of a run depend on."""
    return {
        "drct": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "basicsr": basicsr.__version__,
    }


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the processor's kind and vector instructions: what rounding depends on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"CPU, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{device.type.upper()}, {platform.machine()}"


def settings_rows(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the settings as a table for readers, with a name and a value in each row."""
    opt = settings["options"]
    network = {key: value for key, value in opt["network_g"].items() if key != "type"}
    weights = opt["path"].get("pretrain_network_g")
    rows = [
        ("network", f"{settings['network']}: {_key_values(network)}"),
        ("weights", f"{weights} ({opt['path'].get('param_key_g')})" if weights else "none: they are random"),
        ("scale", f"×{opt['scale']}"),
        ("precision", opt.get("precision", "fp32")),
        ("tile", _key_values(opt["tile"]) if isinstance(opt.get("tile"), dict) else opt.get("tile") or "whole images"),
    ]
    if opt.get("tile_error"):
        rows.append(("tile_error", f"{opt['tile_error']:g} of 255 levels (RMS) at most, by overlap"))
    for dataset in opt["datasets"].values():
        if dataset["phase"] == "test":
            shown = {key: dataset[key] for key in ("type", "dataroot_gt", "dataroot_lq") if dataset.get(key)}
            rows.append((f"dataset {dataset['name']}", _key_values(shown)))
    rows += [(f"metric {name}", _key_values(metric)) for name, metric in (opt["val"].get("metrics") or {}).items()]
    rows += [(key, settings[key]) for key in ("date", "device")]
    rows.append(("versions", _key_values(settings["versions"])))
    return [(name, str(value)) for name, value in rows]


def settings_line(settings: dict[str, Any]) -> str:
    """Return the settings that matter most, such as 'DRCT ×4, DRCT_SRx4.pth, 2025-01-31 12:00:00+01:00'."""
    opt = settings["options"]
    weights = Path(opt["path"].get("pretrain_network_g") or "random weights").name
    return f"{settings['network']} ×{opt['scale']}, {weights}, {settings['date']}"


def _key_values(values: dict[str, Any]) -> str:
    plain = {True: "true", False: "false"}
    return ", ".join(f"{key} {plain[value] if isinstance(value, bool) else value}" for key, value in values.items())
