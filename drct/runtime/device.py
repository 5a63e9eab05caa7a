"""Choosing where to compute."""

import torch

from drct.errors import DRCTError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # what autocast computes in


def accelerator() -> str | None:
    """Type of the accelerator that this machine has: 'cuda', 'mps' or None."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return None


def fastest_precision(device: torch.device) -> str:
    """The precision to upscale in where none is asked for: bf16 where the device multiplies such numbers fast.

    Results then agree with fp32 to about 50 dB PSNR or better.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # PyTorch has no public way
        return "bf16" if has_bf16() else "fp32"
    return "fp32"


def resolve_num_gpu(requested: int | str, logger, several_processes: bool = False) -> int:
    """The number of GPUs to use for an option file's `num_gpu` (a number or 'auto'): 0 means the CPU.

    Asking for more than there are is answered with a warning, not an error, so that option files written for a GPU
    run anywhere. Of several processes each has one GPU, and the number only says whether to use them.
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
    """The device to put a network on, for a resolved `num_gpu`."""
    return torch.device(accelerator() or "cpu") if num_gpu else torch.device("cpu")
