"""Choice of the device and the precision to compute with."""

import logging

import torch

from drct.errors import DRCTError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # data type of autocast


def accelerator() -> str | None:
    """Return the type of the accelerator of this machine: 'cuda', 'mps' or None."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def fastest_precision(device: torch.device) -> str:
    """Return the precision that is fastest on a device: bf16 or fp16 where the hardware supports it, else fp32.

    Results agree with those in fp32 to about 50 dB PSNR or better.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # PyTorch has no public way
        return "bf16" if has_bf16() else "fp32"
    return "fp32"


def resolve_num_gpu(requested: int | str, logger: logging.Logger, several_processes: bool = False) -> int:
    """Return the number of GPUs to use for an option file's `num_gpu`.

    More than there are is a warning, not an error, so that option files written for a GPU run anywhere. With several
    processes, each has one GPU, and the number only decides between GPU and CPU.

    Raises:
        DRCTError: if `requested` is neither a number from 0 nor 'auto'.
    """
    if requested != "auto" and (not isinstance(requested, int) or requested < 0):
        raise DRCTError(f"num_gpu must be 0 (CPU), a number of GPUs or auto, not {requested!r}")
    kind = accelerator()
    available = torch.cuda.device_count() if kind == "cuda" else int(kind is not None and not several_processes)
    if requested == 0:
        return 0
    if available == 0:
        logger.warning(f"num_gpu: {requested}, but PyTorch finds no GPU: running on the CPU")
        return 0
    if requested == "auto" or several_processes:
        return available
    if int(requested) > available:
        logger.warning(f"num_gpu: {requested}, but PyTorch finds {available}: using {available}")
    return min(int(requested), available)


def device_for(num_gpu: int) -> torch.device:
    """Return the device of a network for a `num_gpu` from `resolve_num_gpu`."""
    return torch.device(accelerator() or "cpu") if num_gpu else torch.device("cpu")
