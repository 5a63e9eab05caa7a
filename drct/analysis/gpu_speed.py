"""Parity, speed, memory and profiles of contenders in PyTorch, in this process: the benchmark of a GPU.

A GPU serves one process at a time best, and its speed does not depend on what was before. So contenders are measured
one after the other, the most important first, until a deadline; whatever is skipped or fails is named. It also runs on
the CPU, to see that it works.
"""

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from drct.analysis.contenders import Contender, make_network, network_options, pytorch_runner
from drct.analysis.deadline import Deadline, Outcome, Step, run_steps
from drct.analysis.kernel_kinds import KernelProfile, profile_run
from drct.analysis.speed import SpeedResult, peak_memory
from drct.analysis.speed_limits import environment
from drct.analysis.speed_report import AttentionTime, Parity, SpeedReport
from drct.archs import gpu_switches
from drct.archs.execution import attentions, operations
from drct.archs.frame import Frame
from drct.archs.gpu_attention import attention_by_kind
from drct.archs.gpu_windows import window_order
from drct.archs.prepared_weights import forget_prepared_weights
from drct.files import write_text
from drct.runtime.device import PRECISIONS
from drct.text import first_line

FEWEST_RUNS, SECONDS_OF_RUNS = 2, 2.5  # of a cell, after those that warm up
FP32_BOUND = 1e-4  # of the difference to the CPU
STEP_BATCH = 4  # images of a training step
MOST_IMPORTANT = ("ours", "original", "hat", "hat-ours", "swinir")
PROFILED = ("ours-bf16", "original-bf16", "hat-ours-bf16", "ours-step-bf16", "original-step-bf16")
BACKENDS = {"efficient": "EFFICIENT_ATTENTION", "cuDNN": "CUDNN_ATTENTION", "products": "MATH"}  # of PyTorch


@dataclass
class Plan:
    """What to measure."""

    contenders: list[Contender]
    sizes: list[tuple[int, int]]  # height and width of images
    step_size: tuple[int, int]  # of those of a training step
    device: str  # 'cuda' or 'cpu'
    threads: int
    rounds: int  # runs of a contender, at most
    parity_size: tuple[int, int] = (64, 96)
    product_side: int = 8192  # of the matrices whose product is the measure of the device
    windows: int = 16  # rows and columns of windows for the comparison of kernels of attention


@dataclass
class Benchmark:
    """A benchmark that is going on."""

    plan: Plan
    report: SpeedReport
    networks: dict[Any, nn.Module] = field(default_factory=dict)  # built so far, on the device
    counted: dict[str, float] = field(default_factory=dict)  # operations per pixel of networks of others


def run_benchmark(
    plan: Plan, reference: str, notes: Iterable[str], deadline: Deadline, file: Path | None
) -> SpeedReport:
    """Measure as much of a plan as time allows.

    Args:
        plan: What to measure.
        reference: Key of the contender to compare speeds with.
        notes: What is left out from the start, and why.
        deadline: When to end.
        file: JSON file to write what is known to after each step, if any.
    """
    torch.set_num_threads(plan.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found = environment(plan.device, plan.threads) | {"TF32": "off"}
    report = SpeedReport(found, {}, [], reference, [], in_process=True, left_out=list(notes))
    benchmark = Benchmark(plan, report)

    def keep(outcome: Outcome) -> None:
        report.skipped, report.failed = outcome.skipped, outcome.failed
        if file:
            write_text(file, report.as_json())

    keep(run_steps(_steps(benchmark), deadline, keep))
    return report


def _steps(benchmark: Benchmark) -> list[Step]:
    """Return the steps of a benchmark, the most important first, with the seconds that they need on a slow GPU."""
    plan = benchmark.plan
    steps = [(-1, 0, Step("rates of matrix products", 5, partial(_products, benchmark)))]
    for name in dict.fromkeys(c.network for c in plan.contenders if c.network in ("DRCT", "HAT")):
        steps.append((-1, 1, Step(f"parity of {name} with the CPU", 20, partial(_parity, benchmark, name))))
    for c in plan.contenders:
        seconds = 90 if c.switch == "compiled" else 30 if c.network == "original DRCT" else 10
        for size in [plan.step_size] if c.training else plan.sizes:
            step = Step(f"{c.key} at {_label(c, size)}", seconds, partial(_measure, benchmark, c, size))
            steps.append((_group(c), _importance(c), step))
        if c.key in PROFILED:
            step = Step(f"profile of {c.key}", 15, partial(_profile, benchmark, c))
            steps.append((2, PROFILED.index(c.key), step))
    steps.append((20, 0, Step("kernels of attention", 15, partial(_attention, benchmark))))
    return [step for *_, step in sorted(steps, key=lambda entry: entry[:2])]


def _group(contender: Contender) -> int:
    """Return the place of a contender in the order of importance; profiles are 2, kernels of attention 20."""
    if contender.switch:
        return 31 if contender.switch == "compiled" else 21
    return {"bf16": 0, "fp32": 10, "fp16": 30}[contender.precision] + contender.training


def _switched(plan: Plan) -> list[Contender]:
    return [c for c in plan.contenders if c.switch]


def _importance(contender: Contender) -> int:
    base = contender.key.removesuffix(f"-{contender.precision}").removesuffix("-step")
    return MOST_IMPORTANT.index(base) if base in MOST_IMPORTANT else len(MOST_IMPORTANT)


def _label(contender: Contender, size: tuple[int, int]) -> str:
    return f"{STEP_BATCH} x {size[0]}x{size[1]}" if contender.training else f"{size[0]}x{size[1]}"


# ---------------------------------------------------------------------------------------------------------------- clock


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Return the seconds of a run: on a GPU between two events of its own, elsewhere by the clock."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def repeated_seconds(run: Callable[[], object], device: str, rounds: int) -> list[float]:
    """Return the seconds of so many runs, of fewer if they take long."""
    seconds: list[float] = []
    while len(seconds) < rounds and (len(seconds) < FEWEST_RUNS or sum(seconds) < SECONDS_OF_RUNS):
        seconds.append(seconds_of(run, device))
    return seconds


def _products(benchmark: Benchmark) -> None:
    """Measure the rate of large matrix products by precision, in GFLOP/s."""
    plan = benchmark.plan
    side = plan.product_side
    for precision, low in PRECISIONS.items():
        a, b = (torch.randn(side, side, device=plan.device).to(low or torch.float32) for _ in range(2))
        run = partial(torch.mm, a, b)
        run()
        fastest = min(repeated_seconds(run, plan.device, 10))
        benchmark.report.product_gflops_per_second[precision] = 2 * side**3 / fastest / 1e9


# --------------------------------------------------------------------------------------------------------------- parity


def enliven_(network: nn.Module) -> None:
    """Give all parameters a size at which they matter; initial weights make attention uniform and blocks add little."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in network.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name:
                p.add_(noise * 0.2)
            else:
                p.copy_(noise if "bias_table" in name else noise * 0.1 if p.ndim == 1 else noise / p[0].numel() ** 0.5)


def _parity(benchmark: Benchmark, name: str) -> None:
    """Compare a network's results on the device with those of the CPU in fp32."""
    plan = benchmark.plan
    network = make_network(name)
    enliven_(network)
    x = torch.rand(1, 3, *plan.parity_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            rounding = float((network(x).float() - expected).abs().max())
    network.to(plan.device)
    switches = dict.fromkeys(c.switch for c in _switched(plan) if c.network == name and c.switch != "compiled")
    for switch in ("", *switches):
        for precision in PRECISIONS:
            bound = FP32_BOUND if precision == "fp32" else 2 * rounding + FP32_BOUND
            runner = pytorch_runner(Contender("", "", name, precision, switch=switch), plan.device, network)
            for _ in range(3):  # graphs are replayed from the third run on
                result = runner(x.to(plan.device))
            error = float((result.cpu().float() - expected).abs().max())
            way = f"{name}, {switch}" if switch else name
            benchmark.report.parity.append(Parity(way, precision, _size(plan.parity_size), error, bound))
    forget_prepared_weights(network)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


# ---------------------------------------------------------------------------------------------------- speed and profile


def _prepare(
    benchmark: Benchmark, contender: Contender, size: tuple[int, int]
) -> tuple[nn.Module, Callable[[], object]]:
    """Return a contender's network as it is after loading, and what runs it on images of a size."""
    plan = benchmark.plan
    key = contender.network, contender.checkpoint
    if key not in benchmark.networks:
        benchmark.networks[key] = make_network(contender.network, **network_options(contender)).to(plan.device)
    network = benchmark.networks[key]
    network.zero_grad()
    forget_prepared_weights(network)
    gc.collect()
    if plan.device == "cuda":
        torch.cuda.empty_cache()
    batch = STEP_BATCH if contender.training else 1
    x = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(plan.device)
    return network, partial(pytorch_runner(contender, plan.device, network), x)


def _measure(benchmark: Benchmark, contender: Contender, size: tuple[int, int]) -> None:
    """Measure seconds and memory of a contender at a size."""
    plan, result = benchmark.plan, SpeedResult(contender.key, _label(contender, size))
    benchmark.report.results.append(result)
    try:
        network, run = _prepare(benchmark, contender, size)
        with peak_memory(plan.device) as peak:
            first = seconds_of(run, plan.device)
            for _ in range(0 if first > SECONDS_OF_RUNS / 3 and contender.switch == "" else 2):
                run()
        result.peak_bytes, result.process_bytes = peak
        result.seconds = repeated_seconds(run, plan.device, plan.rounds)
        images, passes = (STEP_BATCH, 3) if contender.training else (1, 1)
        result.operations = images * passes * _operations(benchmark, contender, network, size)
    except Exception as error:
        result.error = f"{type(error).__name__}: {first_line(error)}"
        raise
    finally:
        for network in benchmark.networks.values():
            network.zero_grad()


def _operations(benchmark: Benchmark, contender: Contender, network: nn.Module, size: tuple[int, int]) -> float:
    """Count the floating point operations that a network's definition takes for an image."""
    if isinstance(network, Frame):
        return operations(network, *size)
    if contender.network not in benchmark.counted:
        side = 64
        x = torch.rand(1, 3, side, side, device=benchmark.plan.device)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(x)
        benchmark.counted[contender.network] = counter.get_total_flops() / side**2
    return benchmark.counted[contender.network] * size[0] * size[1]


def _profile(benchmark: Benchmark, contender: Contender) -> None:
    """Profile a run of a contender by kind of kernel."""
    size = benchmark.plan.step_size if contender.training else benchmark.plan.sizes[0]
    network, run = _prepare(benchmark, contender, size)
    run()
    profiled = profile_run(run, benchmark.plan.device)
    benchmark.report.profiles.append(KernelProfile(contender.key, _label(contender, size), *profiled))
    network.zero_grad()


def _attention(benchmark: Benchmark) -> None:
    """Measure kernels of attention on the shapes of a group's blocks, in bf16."""
    plan = benchmark.plan
    group: Any = make_network("DRCT")
    for attn in attentions(group.layers[0]):
        heads, d = attn.num_heads, -(-len(attn.proj.weight) // attn.num_heads // 8) * 8
        for name, run in _kernels(plan, heads, d, attn.window_size):  # type: ignore[arg-type]
            entry = AttentionTime(name, heads, d, plan.windows**2)
            benchmark.report.attention.append(entry)
            try:
                run()
                entry.seconds = min(repeated_seconds(run, plan.device, plan.rounds))
            except Exception as error:  # a kernel that this device does not have
                entry.error = first_line(error)


def _kernels(plan: Plan, heads: int, d: int, w: int) -> Iterable[tuple[str, Callable[[], object]]]:
    """Yield ways of computing the attention of a block by name."""
    features = torch.empty(1, plan.windows * w, plan.windows * w, 1, device=plan.device)
    kinds = [window_order(features, w, shift).kinds for shift in (0, w // 2)]
    q, k, v = torch.randn(3, plan.windows**2, w * w, heads, d, device=plan.device).bfloat16().transpose(2, 3)
    bias = torch.randn(4, heads, w * w, w * w, device=plan.device).bfloat16()

    def inference(which: int, switch: bool = False) -> Tensor:
        with torch.no_grad(), gpu_switches.switched(triton=switch):
            return attention_by_kind(q, k, v, bias, kinds[which])

    def backend(name: str) -> Tensor:
        with sdpa_kernel(getattr(SDPBackend, name)):
            return inference(0)

    def training(which: int) -> None:
        tensors = q_, k_, v_, bias_ = [t.detach().requires_grad_() for t in (q, k, v, bias[0])]
        out = attention_by_kind(q_, k_, v_, bias_, kinds[which])
        torch.autograd.grad(out, tensors, torch.ones_like(out))

    yield "as executed", partial(inference, 0)
    yield "as executed, shifted", partial(inference, 1)
    yield "Triton", partial(inference, 0, True)
    yield "Triton, shifted", partial(inference, 1, True)
    for title, name in BACKENDS.items():
        yield f"PyTorch, {title}", partial(backend, name)
    yield "forward and backward", partial(training, 0)
    yield "forward and backward, shifted", partial(training, 1)
