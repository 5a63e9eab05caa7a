"""Time and memory of DRCT, side by side with the original, with other networks and with other runtimes.

Every contender runs in a process of its own, one at a time, in turns, so that a machine that is faster at one moment
than at another treats all alike; figures are medians over the turns. Peers are used where they are installed: spandrel
for the original DRCT, HAT and SwinIR, ONNX Runtime and OpenVINO for the original exported at the very size. All have
the shape of the released x4 networks, with random weights.
"""

import argparse
import gc
import json
import math
import multiprocessing
import platform
import re
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from drct.analysis import networks
from drct.errors import DRCTError, did_you_mean, one_line_errors
from drct.files import write_atomically

NETWORKS = {"ours": "DRCT", "original": "original DRCT", "hat": "HAT", "swinir": "SwinIR-M"}  # in analysis.networks

Runner = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Contender:
    """A network in a runtime.

    Args:
        key: Name on the command line.
        title: Name in the table.
        packages: What must be installed.
        precision: fp32 or bf16.
        network: 'ours', 'original', 'hat' or 'swinir'.
        runtime: 'pytorch', 'onnxruntime' or 'openvino'.
        training: Measure a training step, forward and backward, instead of inference.
        checkpoint: Recompute activations in the backward pass.
    """

    key: str
    title: str
    precision: str = "fp32"
    network: str = "ours"
    runtime: str = "pytorch"
    packages: tuple[str, ...] = ()
    training: bool = False
    checkpoint: bool = False


SPANDREL = ("spandrel",)
CONTENDERS = {
    contender.key: contender
    for contender in (
        Contender("original", "original", "fp32", "original", packages=SPANDREL),
        Contender("original-bf16", "original", "bf16", "original", packages=SPANDREL),
        Contender("hat", "HAT", "fp32", "hat", packages=SPANDREL),
        Contender("swinir", "SwinIR-M", "fp32", "swinir", packages=SPANDREL),
        Contender(
            "onnxruntime", "original, ONNX Runtime", "fp32", "original", "onnxruntime", (*SPANDREL, "onnxruntime")
        ),
        Contender("openvino", "original, OpenVINO", "fp32", "original", "openvino", (*SPANDREL, "openvino")),
        Contender("openvino-bf16", "original, OpenVINO", "bf16", "original", "openvino", (*SPANDREL, "openvino")),
        Contender("ours", "this project", "fp32"),
        Contender("ours-bf16", "this project", "bf16"),
        Contender("original-step", "original, training step", "fp32", "original", packages=SPANDREL, training=True),
        Contender("ours-step", "this project, training step", training=True),
        Contender("ours-step-checkpoint", "the same, use_checkpoint", training=True, checkpoint=True),
    )
}


@dataclass
class Result:
    """What was measured of a contender at a size."""

    contender: str
    size: str
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0  # above the loaded network
    process_bytes: int = 0  # of the whole process, at that moment; on a GPU: of what PyTorch allocated there
    error: str = ""

    @property
    def median(self) -> float:
        """Median of the seconds; nan if there are none."""
        return median(self.seconds) if self.seconds else math.nan


# --------------------------------------------------------------------------------------------- in a contender's process


def make_network(name: str, **options: Any) -> torch.nn.Module:
    """A network of the released x4 shape, with random weights, in evaluation mode."""
    torch.manual_seed(0)
    return networks.make(NETWORKS[name], **options)


def make_runner(contender: Contender, device: str, threads: int, folder: Path) -> Runner:
    """Load a contender for images of a size; those of other runtimes from what `export` wrote to `folder`."""
    torch.set_num_threads(threads)
    if contender.runtime == "pytorch":
        return _runner_of_pytorch(contender, device)
    return _runner_of_another_runtime(contender, threads, folder)


def _runner_of_pytorch(contender: Contender, device: str) -> Runner:
    network = make_network(contender.network, **({"use_checkpoint": True} if contender.checkpoint else {})).to(device)
    if contender.training:
        network.train()

        def step(x: torch.Tensor) -> torch.Tensor:
            network.zero_grad()
            out = network(x)
            out.abs().mean().backward()
            return out

        return step
    low = torch.autocast(device, torch.bfloat16) if contender.precision == "bf16" else nullcontext()

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), low:
            return network(x)

    return run


def _runner_of_another_runtime(contender: Contender, threads: int, folder: Path) -> Runner:
    file = exported_file(contender, folder)
    if contender.runtime == "openvino":
        import openvino

        hints = {"INFERENCE_PRECISION_HINT": "f32" if contender.precision == "fp32" else "bf16"}
        compiled = openvino.Core().compile_model(file, "CPU", hints | {"INFERENCE_NUM_THREADS": threads})
        return lambda x: torch.from_numpy(compiled(x.numpy())[0])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def exported_file(contender: Contender, folder: Path) -> str:
    """Where `export` writes."""
    return str(folder / f"{contender.network}.{'xml' if contender.runtime == 'openvino' else 'onnx'}")


def export(contender: Contender, height: int, width: int, folder: Path) -> None:
    """Write a network for another runtime. Takes gigabytes, so it is done in a process of its own."""
    network, example = make_network(contender.network), torch.rand(1, 3, height, width)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the masks become constants: that is what is measured here
        traced = torch.jit.trace(network, example, check_trace=False)
        if contender.runtime == "openvino":
            import openvino

            model = openvino.convert_model(traced, example_input=example, input=[1, 3, height, width])
            openvino.save_model(model, exported_file(contender, folder), compress_to_fp16=False)
        else:
            torch.onnx.export(traced, (example,), exported_file(contender, folder), input_names=["x"], dynamo=False)


def serve(
    connection: Any, contender: Contender, size: tuple[int, int], device: str, threads: int, folder: Path
) -> None:
    """Load, then answer each request with the seconds and the memory of a run, or with an error."""
    try:
        runner = make_runner(contender, device, threads, folder)
        gc.collect()
        x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
        connection.send("loaded")
        while connection.recv():
            with _peak_memory(device) as peak:
                start = time.perf_counter()
                runner(x)
                if device == "cuda":
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - start
            connection.send((seconds, *peak))
    except Exception as error:
        connection.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


@contextmanager
def _peak_memory(device: str) -> Iterator[list[int]]:
    """Largest memory within the block, above that at its start and in all, in bytes; known after it."""
    peak = [0, 0]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        yield peak
        peak[:] = torch.cuda.max_memory_allocated() - start, torch.cuda.max_memory_allocated()
        return
    process, running = psutil.Process(), threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not running.wait(0.005):
            used = process.memory_info().rss
            peak[:] = max(peak[0], used - start), max(peak[1], used)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        running.set()
        watcher.join()


# ------------------------------------------------------------------------------------------------------- all in turns


def compare(contenders: list[Contender], size: tuple[int, int], rounds: int, device: str, threads: int) -> list[Result]:
    """Measure contenders at a size, in turns. One that fails is reported and left out."""
    context = multiprocessing.get_context("spawn")
    results = {c.key: Result(c.key, f"{size[0]}x{size[1]}") for c in contenders}
    workers = {}
    bar = tqdm(total=len(contenders) * (rounds + 2), desc=f"{size[0]}x{size[1]}", unit="run", leave=False)
    folder = tempfile.TemporaryDirectory()
    try:
        for contender in contenders:
            bar.set_postfix_str(f"load {contender.key}")
            if contender.runtime != "pytorch" and not Path(exported_file(contender, Path(folder.name))).exists():
                exporting = context.Process(target=export, args=(contender, *size, Path(folder.name)))
                exporting.start()
                exporting.join()
            here, there = context.Pipe()
            arguments = (there, contender, size, device, threads, Path(folder.name))
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            there.close()
            workers[contender.key] = (process, here)
            _ask(here, results[contender.key], bar)
        for turn in range(rounds + 1):  # the first warms up, and shows the memory
            for key, (_, connection) in workers.items():
                if results[key].error:
                    continue
                bar.set_postfix_str(key)
                connection.send(True)
                answer = _ask(connection, results[key], bar)
                if answer and turn == 0:
                    results[key].peak_bytes, results[key].process_bytes = answer[1:]
                elif answer:
                    results[key].seconds.append(answer[0])
    finally:
        bar.close()
        for process, connection in workers.values():
            connection.close()
            process.kill()
            process.join()
        folder.cleanup()
    return list(results.values())


def _ask(connection: Any, result: Result, bar: tqdm) -> tuple[float, int, int] | None:
    """The next answer of a contender: of a run, or None."""
    try:
        answer = connection.recv()
    except EOFError:
        answer = "its process ended: out of memory?"
    bar.update()
    if isinstance(answer, tuple):
        return answer
    if answer != "loaded":
        result.error = answer
    return None


def table(results: list[Result], reference: str) -> str:
    """Markdown: seconds, spread, speed as a multiple of the reference's at the same size, and memory.

    Peak memory is that above the loaded network.
    """
    lines = [
        f"| size | network | precision | median s | fastest .. slowest | times as fast as {reference} "
        "| peak memory | of the whole process |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = {r.size: r.median for r in results if r.contender == reference}
    for r in results:
        c = CONTENDERS[r.contender]
        head = f"| {r.size} | {c.title} | {c.precision} |"
        if r.error:
            lines.append(f"{head} failed: {r.error} | | | | |")
            continue
        ratio = base.get(r.size, math.nan) / r.median
        spread = f"{min(r.seconds):.2f} .. {max(r.seconds):.2f}"
        lines.append(
            f"{head} {r.median:.2f} | {spread} | {'' if math.isnan(ratio) else f'{ratio:.2f}'} "
            f"| {r.peak_bytes / 1e9:.2f} GB | {r.process_bytes / 1e9:.2f} GB |"
        )
    return "\n".join(lines)


def draw(results: list[Result], path: Path) -> None:
    """Bars of the median seconds, a panel per size, into a PNG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.use("Agg")
    measured = [r for r in results if r.seconds]
    sizes = list(dict.fromkeys(r.size for r in measured))
    figure = Figure(figsize=(8, 0.6 + sum(0.7 + 0.28 * sum(r.size == s for r in measured) for s in sizes)), dpi=150)
    heights = [1 + sum(r.size == s for r in measured) for s in sizes]
    panels = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, size in zip(panels, sizes, strict=True):
        rows = [r for r in measured if r.size == size][::-1]
        contenders = [CONTENDERS[r.contender] for r in rows]
        colours = ["#0072b2" if c.network == "ours" else "#bbbbbb" for c in contenders]
        bars = panel.barh([f"{c.title} ({c.precision})" for c in contenders], [r.median for r in rows], color=colours)
        panel.bar_label(bars, [f" {r.median:.2f} s, {r.peak_bytes / 1e9:.2f} GB" for r in rows], fontsize=8)
        panel.set_title(f"{size} pixels, x4", fontsize=9, loc="left")
        panel.set_xlim(0, 1.25 * max(r.median for r in rows))
        panel.set_xlabel("median seconds; label: also peak memory above the loaded network", fontsize=7)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


def floor(size: tuple[int, int], rates: dict[str, float], training: bool = False) -> str:
    """A line that says how long the network's products alone would take at the machine's rates.

    Args:
        size: Of the image.
        rates: See `product_rates`.
        training: Those of a training step, forward and backward.
    """
    with torch.device("meta"):
        network, image = make_network("ours").train(training), torch.rand(1, 3, *size)
    with FlopCounterMode(display=False) as counter:
        out = network(image)
        if training:
            out.mean().backward()
    operations = counter.get_total_flops() / 1e9
    times = ", ".join(f"{operations / rate:.2f} s at {precision}" for precision, rate in rates.items())
    what = "a training step's" if training else "DRCT's"
    products = f"the {operations:.0f} GFLOP of {what} products, as computed here,"
    return f"{size[0]}x{size[1]}: {products} take {times} at the machine's best rate"


# Kinds of operations, as PyTorch's profiler names them, and what they are. Sums and quotients of attention on the CPU
# are among the additions.
KINDS = {
    "attention": r"scaled_dot_product|bmm|softmax|exp2",
    "linear layers and convolutions": r"_linear|addmm|::mm$|::linear|convolution|conv2d",
    "moving and reordering": r"copy|cat$|reorder|pixel_shuffle|pixel_unshuffle|contiguous|index|gather",
    "normalization, activations, additions": r"norm|gelu|relu|add|mul|sum|div|sub",
}


def profile_of(contender: Contender, size: tuple[int, int], device: str, threads: int) -> str:
    """Markdown: the seconds of one run of a contender in PyTorch by kind of operation, and their share."""
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(threads)
    runner = _runner_of_pytorch(contender, device)
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
    head = f"| {size[0]}x{size[1]}: {contender.title}, {contender.precision} | s | share |\n|---|---|---|\n"
    return head + "\n".join(f"| {kind} | {s:.2f} | {s / total:.0%} |" for kind, s in seconds.items())


def product_rates(device: str, threads: int) -> dict[str, float]:
    """The GFLOP/s of the fastest matrix product, per precision, of a shape that is typical for the network."""
    from drct.archs.kernels import linear, packed

    torch.set_num_threads(threads)
    rows, inside, out = 4096, 308, 960
    rates = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x, weight = (
            torch.rand(rows, inside, device=device, dtype=dtype),
            torch.rand(out, inside, device=device).to(dtype),
        )
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


def _environment(device: str, threads: int) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if device == "cpu" and cpu.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpu.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return {"device": name, "threads": threads, "torch": torch.__version__, "python": platform.python_version()}


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, as 192x256") from error
    if min(height, width) < 16 or height % 16 or width % 16:
        raise argparse.ArgumentTypeError(f"{text}: sides must be multiples of the window, 16")
    return height, width


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of the benchmark."""
    inference = [key for key, c in CONTENDERS.items() if not c.training]
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=_size, nargs="+", default=[(64, 64), (192, 256)], help="default: 64x64 192x256")
    parser.add_argument("--contenders", nargs="+", default=inference, help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each that count, default 3")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU; default: its cores")
    parser.add_argument("--reference", default="original", help="what speeds are compared with, default: original")
    parser.add_argument(
        "--profile", action="store_true", help="also tell what the time of PyTorch's contenders goes to"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--show", type=Path, metavar="JSON", help="measure nothing, show these earlier figures")
    parser.add_argument("--chart", type=Path, help="PNG to draw (needs matplotlib)")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point. Returns 0, 1 if a contender failed, 2 if nothing could be measured."""
    args = argument_parser().parse_args(argv)
    if args.chart and find_spec("matplotlib") is None:
        raise DRCTError("--chart needs matplotlib: pip install -e '.[bench]'")
    if args.show:
        _show(read(args.show), args.chart)
        return 0
    for key in (*args.contenders, args.reference):
        if key not in CONTENDERS:
            raise DRCTError(f"there is no contender {key!r}{did_you_mean(key, CONTENDERS)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise DRCTError("--device cuda: PyTorch finds no GPU")
    if args.rounds < 1:
        raise DRCTError(f"--rounds must be above 0, not {args.rounds}")
    contenders = []
    for contender in (CONTENDERS[key] for key in args.contenders):
        if missing := [package for package in contender.packages if find_spec(package) is None]:
            print(f"{contender.key} is left out: {', '.join(missing)} is not installed", file=sys.stderr)
        elif args.device == "cuda" and contender.runtime != "pytorch":
            print(f"{contender.key} is left out: it is measured on the CPU only", file=sys.stderr)
        else:
            contenders.append(contender)
    if not contenders:
        raise DRCTError("there is nothing to measure")
    rates = product_rates(args.device, args.threads)
    results = [r for size in args.sizes for r in compare(contenders, size, args.rounds, args.device, args.threads)]
    content = {
        "environment": _environment(args.device, args.threads),
        "product_gflops_per_second": rates,
        "floors": [
            floor(size, rates, step) for size in args.sizes for step in sorted({c.training for c in contenders})
        ],
        "reference": args.reference,
        "results": [asdict(r) for r in results],
    }
    if args.json:
        text = json.dumps(content, indent=1).encode()
        write_atomically(args.json, lambda file: file.write(text))
    _show(content, args.chart)
    if args.profile:
        for size in args.sizes:
            for contender in (c for c in contenders if c.runtime == "pytorch"):
                print("\n" + profile_of(contender, size, args.device, args.threads))
    return int(any(r.error for r in results))


def _show(content: dict[str, Any], chart: Path | None) -> None:
    """Print what was measured, and draw it."""
    results = [Result(**r) for r in content["results"]]
    print(", ".join(f"{key} {value}" for key, value in content["environment"].items()))
    rates = [f"{key} {value:.0f} GFLOP/s" for key, value in content["product_gflops_per_second"].items()]
    print(f"fastest matrix product: {', '.join(rates)}")
    print("\n".join(content["floors"]))
    print(table(results, content["reference"]))
    if chart and any(r.seconds for r in results):
        draw(results, chart)


def read(path: Path) -> dict[str, Any]:
    """What `--json` wrote. Raises `DRCTError` if the file is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for result in content["results"]:
            Result(**result)
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DRCTError(f"{path} is no result of this command's --json: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
