"""Limits of speed: the rate of matrix products, the time that the network's products take, and a profile of a run."""

import platform
import re
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from drct.analysis.contenders import Contender, make_network, pytorch_runner
from drct.archs.kernels import linear, packed
from drct.text import markdown_table

# Kinds of operations by their names in PyTorch's profiler. On the CPU, sums and quotients of attention count as
# additions.
KINDS = {
    "attention": r"scaled_dot_product|bmm|softmax|exp2",
    "linear layers and convolutions": r"_linear|addmm|::mm$|::linear|convolution|conv2d",
    "moving and reordering": r"copy|cat$|reorder|pixel_shuffle|pixel_unshuffle|contiguous|index|gather",
    "normalization, activations, additions": r"norm|gelu|relu|add|mul|sum|div|sub",
}


def product_rates(device: str, threads: int) -> dict[str, float]:
    """Return the GFLOP/s of the fastest matrix product by precision, for a shape that is typical of the network."""
    torch.set_num_threads(threads)
    rows, inside, out = 4096, 308, 960
    rates = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x = torch.rand(rows, inside, device=device, dtype=dtype)
        weight = torch.rand(out, inside, device=device).to(dtype)
        fast, seconds = packed(weight, rows), []
        with torch.no_grad():
            for _ in range(30):
                for product in (linear, torch.nn.functional.linear):
                    start = time.perf_counter()
                    product(x, fast if product is linear else weight, None)
                    if device == "cuda":
                        torch.cuda.synchronize()
                    seconds.append(time.perf_counter() - start)
        rates[precision] = 2 * rows * inside * out / min(seconds) / 1e9
    return rates


def floor(size: tuple[int, int], rates: dict[str, float], training: bool = False) -> str:
    """Return a sentence on the time that DRCT's products alone would take at the machine's rates.

    Args:
        size: Height and width of the image.
        rates: GFLOP/s by precision, from `product_rates`.
        training: Count the products of a training step, forward and backward, instead of inference.
    """
    with torch.device("meta"):
        network, image = make_network("DRCT").train(training), torch.rand(1, 3, *size)
    with FlopCounterMode(display=False) as counter:
        out = network(image)
        if training:
            out.mean().backward()
    operations = counter.get_total_flops() / 1e9
    times = ", ".join(f"{operations / rate:.2f} s at {precision}" for precision, rate in rates.items())
    owner = "a training step's" if training else "DRCT's"
    products = f"the {operations:.0f} GFLOP of {owner} products, as computed here,"
    return f"{size[0]}x{size[1]}: {products} take {times} at the machine's best rate"


def profile_of(contender: Contender, size: tuple[int, int], device: str, threads: int) -> str:
    """Return a Markdown table of the seconds of one run of a contender in PyTorch by kind of operation."""
    torch.set_num_threads(threads)
    runner = pytorch_runner(contender, device)
    x = torch.rand(1, 3, *size, device=device)
    runner(x)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=activities) as profiler:
        runner(x)
    seconds = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in profiler.key_averages():
        kind = next((kind for kind, names in KINDS.items() if re.search(names, event.key)), "other")
        time_us = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        seconds[kind] += time_us / 1e6
    total = sum(seconds.values())
    rows = [(kind, f"{s:.2f}", f"{s / total:.0%}") for kind, s in seconds.items()]
    return markdown_table([f"{size[0]}x{size[1]}: {contender.title}, {contender.precision}", "s", "share"], rows)


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return the processor or GPU, the threads and the versions by name."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if device == "cpu" and cpu.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpu.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return {"device": name, "threads": threads, "torch": torch.__version__, "python": platform.python_version()}
