"""Limits of speed: the rate of matrix products, the time that the network's products take, and a profile of a run."""

import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from drct.analysis.contenders import Contender, make_network, pytorch_runner
from drct.analysis.kernel_kinds import profile_run
from drct.archs.kernels import linear, packed
from drct.text import markdown_table


def product_rates(threads: int) -> dict[str, float]:
    """Return the GFLOP/s of the CPU's fastest matrix product by precision, for a shape that is typical of the network.

    See `gpu_speed.product_rates` for GPUs.
    """
    torch.set_num_threads(threads)
    rows, inside, out = 4096, 308, 960
    rates = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x = torch.rand(rows, inside, dtype=dtype)
        weight = torch.rand(out, inside).to(dtype)
        fast, seconds = packed(weight, rows), []
        with torch.no_grad():
            for _ in range(30):
                for product in (linear, torch.nn.functional.linear):
                    start = time.perf_counter()
                    product(x, fast if product is linear else weight, None)
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


def profile_of(contender: Contender, size: tuple[int, int], threads: int) -> str:
    """Return a Markdown table of the seconds of one run of a contender on the CPU by kind of operation."""
    torch.set_num_threads(threads)
    runner = pytorch_runner(contender, "cpu")
    x = torch.rand(contender.batch, 3, *size)
    runner(x)
    seconds, *_ = profile_run(lambda: runner(x), "cpu")
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
