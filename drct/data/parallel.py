"""Running one job per file in several processes."""

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import cv2
import torch
from tqdm import tqdm

from drct.errors import DRCTError

Result = TypeVar("Result")


def run_parallel(
    jobs: Mapping[Path, Callable[[], Result]], processes: int, title: str
) -> tuple[dict[Path, Result], dict[Path, str]]:
    """Run one job per file, with a progress bar: in this process, or in several if the jobs can be pickled.

    Returns:
        Results by file and, for the files whose job failed, the reasons. A failure does not stop the other jobs.

    Raises:
        DRCTError: if the system kills one of the processes.
    """
    results: dict[Path, Result] = {}
    failed: dict[Path, str] = {}

    def finish(source: Path, get: Callable[[], Result]) -> None:
        try:
            results[source] = get()
        except BrokenProcessPool:
            raise
        except Exception as error:  # an odd file may raise anything
            failed[source] = str(error) if str(source) in str(error) else f"{source}: {error}"

    if processes <= 1 or len(jobs) <= 1:
        for source, job in tqdm(jobs.items(), title, unit="image"):
            finish(source, job)
        return results, failed
    # A fork of a process in which PyTorch has computed with several threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_use_single_thread) as pool:
        futures: dict[Future[Result], Path] = {pool.submit(job): source for source, job in jobs.items()}
        try:
            for future in tqdm(as_completed(futures), title, total=len(futures), unit="image"):
                finish(futures[future], future.result)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        except BrokenProcessPool as error:  # which is no fault of any file
            raise DRCTError(
                f"{title}: a process was killed, probably since the memory did not suffice: take fewer, --processes 1"
            ) from error
    return results, failed


def _use_single_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
