"""Progress of a training run: progress bar, log lines, TensorBoard, Weights & Biases, scalars.csv."""

import logging
import math
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

from basicsr.utils import init_wandb_logger
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from drct.errors import DRCTError
from drct.files import archive, write_text
from drct.runs.log import LOGGERS
from drct.runs.scalars import FILE_NAME, Scalars
from drct.runtime import distributed


def open_scalars(opt: dict[str, Any], iteration: int, metrics_again: bool) -> Scalars | None:
    """Open a run's `Scalars`, with TensorBoard and Weights & Biases if wanted. None in all processes but the first."""
    if distributed.rank() != 0:
        return None
    root = Path(opt["path"]["experiments_root"])
    tensorboard = None
    if opt["logger"]["use_tb_logger"] and not opt["name"].startswith("debug"):
        from torch.utils.tensorboard import SummaryWriter  # optional, and slow to import

        folder = root.parents[1] / "tb_logger" / opt["name"]
        if iteration == 0:
            archive(folder)
        if (opt["logger"].get("wandb") or {}).get("project"):
            _start_wandb(opt, root / "wandb_id.txt")
        # purge_step hides the steps that the run is about to repeat
        tensorboard = SummaryWriter(log_dir=str(folder), purge_step=iteration + 1 if iteration else None)
    return Scalars(root / FILE_NAME, iteration, metrics_again, tensorboard)


def _start_wandb(opt: dict[str, Any], id_file: Path) -> None:
    """Log TensorBoard's numbers to Weights & Biases too; a resumed run goes on in the same run there."""
    if not id_file.exists():
        write_text(id_file, opt["logger"]["wandb"].get("resume_id") or secrets.token_hex(4))
    opt["logger"]["wandb"]["resume_id"] = id_file.read_text(encoding="utf-8")
    try:
        init_wandb_logger(opt)
    except ImportError as error:
        raise DRCTError("logger.wandb.project is set, but wandb is not installed: pip install wandb") from error


class Monitor:
    """Times the steps of a run from `iteration` on, and reports its progress if there are `scalars`."""

    def __init__(self, opt: dict[str, Any], iteration: int, samples_per_step: int, scalars: Scalars | None) -> None:
        self.total = opt["train"]["total_iter"]
        self.samples_per_step = samples_per_step  # in all processes together
        self.scalars = scalars
        self.name = opt["name"]
        self.iteration = self.start = iteration
        self._data_time = self._step_time = 0.0  # since the last report
        self._all_time = self._all_data_time = 0.0  # until the last report
        self._steps = 0  # since the last report
        self._last = time.perf_counter()
        visible = scalars is not None and sys.stderr.isatty()
        self.bar = tqdm(
            total=self.total, initial=iteration, desc=self.name, unit="it", disable=not visible, dynamic_ncols=True
        )

    @contextmanager
    def active(self) -> Iterator["Monitor"]:
        """Let log messages pass above the progress bar."""
        loggers = [logging.getLogger(name) for name in LOGGERS]
        with nullcontext() if self.bar.disable else logging_redirect_tqdm(loggers):
            try:
                yield self
            finally:
                self.bar.close()

    def start_step(self) -> None:
        """Start the clock of a step; time before, such as for validation, does not count."""
        self._last = time.perf_counter()

    def data_ready(self) -> None:
        """Record that the batch has been loaded."""
        self._data_time += time.perf_counter() - self._last

    def end_step(self) -> None:
        """Record that the step is done."""
        self._step_time += time.perf_counter() - self._last
        self.iteration += 1
        self._steps += 1
        self.bar.update()

    def waited(self) -> float:
        """Return the share of the time of all steps in which they waited for images."""
        total = self._all_time + self._step_time
        return (self._all_data_time + self._data_time) / total if total else 0.0

    def report(self, epoch: int, rates: list[float], log: dict[str, float]) -> None:
        """Write learning rates, losses (`l_...` in `log`) and other numbers of the last step to log and scalars."""
        if self.scalars is None:
            return
        step, data = self._step_time / self._steps, self._data_time / self._steps
        self._all_time += self._step_time
        self._all_data_time += self._data_time
        left = self._all_time / (self.iteration - self.start) * (self.total - self.iteration)
        numbers = {"lr": rates[0], "iter_time": step, "data_time": data, "images_per_s": self.samples_per_step / step}
        tags = {f"losses/{key}" if key.startswith("l_") else f"train/{key}": value for key, value in log.items()}
        for tag, value in ({f"train/{key}": value for key, value in numbers.items()} | tags).items():
            self.scalars.add_scalar(tag, value, self.iteration)
        eta = timedelta(seconds=int(left)) if math.isfinite(left) else "?"
        losses = " ".join(f"{key}: {value:.4e}" for key, value in log.items())
        logging.getLogger("basicsr").info(
            f"[{self.name[:5]}..][epoch:{epoch:3d}, iter:{self.iteration:8,d}, "
            f"lr:({','.join(f'{rate:.3e}' for rate in rates)})] [eta: {eta}, time (data): {step:.3f} ({data:.3f}), "
            f"{numbers['images_per_s']:.1f} images/s] {losses}"
        )
        self.bar.set_postfix_str(f"{losses} lr {rates[0]:.2e} data {data / step:.1%}")
        self._data_time = self._step_time = 0.0
        self._steps = 0
