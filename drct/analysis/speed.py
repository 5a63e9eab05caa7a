"""Time and memory of contenders on the CPU, each in a process of its own, in turns.

Changes in the speed of the machine affect all contenders alike.
"""

import gc
import math
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median

import psutil
import torch
from tqdm import tqdm

from drct.analysis.contenders import Contender, export_network, exported_file, exported_runner, pytorch_runner
from drct.text import first_line


@dataclass
class SpeedResult:
    """Measurements of a contender at a size."""

    contender: str  # its key
    size: str  # <height>x<width> of the image
    seconds: list[float] = field(default_factory=list)  # of each run
    peak_bytes: int = 0  # largest memory of a run, above that of the loaded network
    process_bytes: int = 0  # largest memory of the whole process; on a GPU, all that PyTorch allocated there
    operations: float = 0  # of a run, as the definition takes them; where they are known
    error: str = ""  # reason why there are no measurements

    @property
    def median(self) -> float:
        """Median of the seconds; nan if there are none."""
        return median(self.seconds) if self.seconds else math.nan


def measure_on_request(
    connection: Connection, contender: Contender, size: tuple[int, int], threads: int, folder: Path
) -> None:
    """Load a contender, then answer each request with seconds and memory of a run, or with an error.

    Memory is watched where "memory" is requested: watching takes time from a network of many small operations.
    """
    try:
        torch.set_num_threads(threads)
        if contender.runtime == "pytorch":
            runner = pytorch_runner(contender, "cpu")
        else:
            runner = exported_runner(contender, threads, folder)
        gc.collect()
        x = torch.rand(contender.batch, 3, *size, generator=torch.Generator().manual_seed(0))
        connection.send("loaded")
        while request := connection.recv():
            with peak_memory("cpu") if request == "memory" else nullcontext([0, 0]) as peak:
                start = time.perf_counter()
                runner(x)
                seconds = time.perf_counter() - start
            connection.send((seconds, *peak))
    except Exception as error:
        connection.send(f"{type(error).__name__}: {first_line(error)}")


@contextmanager
def peak_memory(device: str) -> Iterator[list[int]]:
    """Yield a list that holds, after the block, its largest memory in bytes: above that at its start, and in all."""
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


def measure_in_turns(
    contenders: list[Contender], size: tuple[int, int], rounds: int, threads: int
) -> list[SpeedResult]:
    """Measure contenders at a size (height, width), in turns. One that fails has an error in its result."""
    label = f"{size[0]}x{size[1]}"
    results = {c.key: SpeedResult(c.key, label) for c in contenders}
    workers: dict[str, tuple[BaseProcess, Connection]] = {}
    total = len(contenders) * (rounds + 2)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=total, desc=label, unit="run", leave=False) as bar:
        try:
            for contender in contenders:
                bar.set_postfix_str(f"load {contender.key}")
                workers[contender.key] = _start(contender, size, threads, Path(folder))
                _ask(workers[contender.key][1], results[contender.key], bar)
            for turn in range(rounds + 1):  # the first run warms up, and its memory is reported
                for key, (_, connection) in workers.items():
                    if results[key].error:
                        continue
                    bar.set_postfix_str(key)
                    connection.send("time" if turn else "memory")
                    answer = _ask(connection, results[key], bar)
                    if answer and turn == 0:
                        results[key].peak_bytes, results[key].process_bytes = answer[1:]
                    elif answer:
                        results[key].seconds.append(answer[0])
        finally:
            for process, connection in workers.values():
                process.kill()  # before it could answer that the connection is closed
                process.join()
                connection.close()
    return list(results.values())


def _start(contender: Contender, size: tuple[int, int], threads: int, folder: Path) -> tuple[BaseProcess, Connection]:
    """Start the process of a contender, whose network is exported first if its runtime needs that."""
    context = multiprocessing.get_context("spawn")
    if contender.runtime != "pytorch" and not Path(exported_file(contender, folder)).exists():
        exporting = context.Process(target=export_network, args=(contender, *size, folder))
        exporting.start()
        exporting.join()
    here, there = context.Pipe()
    arguments = (there, contender, size, threads, folder)
    process = context.Process(target=measure_on_request, args=arguments, daemon=True)
    process.start()
    there.close()
    return process, here


def _ask(connection: Connection, result: SpeedResult, bar: tqdm) -> tuple[float, int, int] | None:
    """Wait for a contender's answer. Returns the measurements of a run; None if it has loaded or failed."""
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
