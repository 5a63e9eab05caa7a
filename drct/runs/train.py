"""The training run: steps, checkpoints and validation as an option file says, in one process or several."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from basicsr.utils import get_time_str

from drct.errors import DRCTError
from drct.files import archive, make_folder, remove_leftovers, write_atomically
from drct.runs.build import batch_size, batches_of, evaluation_loaders, make_model, training_loader
from drct.runs.log import RunLog
from drct.runs.options import options_text
from drct.runs.progress import Monitor, open_scalars
from drct.runs.schema import TrainingOptions
from drct.runs.signals import Stopped, StopRequest
from drct.runtime import checkpoint, distributed
from drct.seeding import STEP, seed_all

GO_ON = "--auto_resume goes on from there"


class TrainingRun:
    """Trains into `experiments/<name>`, anew or from a training state, exactly as if it had never been stopped.

    All that a step does follows from the state it begins with and from (seed, iteration, process), so a state holds
    no random generators: the sampler is entered at the number of samples seen, samples and steps seed themselves.

    Args:
        opt: Options, as `read_options` returns them.
        option_file: Copied to the experiment.
        log: The `RunLog`.
    """

    def __init__(self, opt: dict[str, Any], option_file: str, log: RunLog) -> None:
        self.opt = opt
        self.options = TrainingOptions.model_validate(opt)
        self.stop = StopRequest()
        self.logger = logging.getLogger("basicsr")
        self.total = self.options.train.total_iter
        self.val_loaders = evaluation_loaders(opt, "val") if self.options.val else []
        state = checkpoint.load_resume_state(opt) or {}
        self.seed = opt["manual_seed"] = state.get("seed", opt["manual_seed"])
        self.iteration = self.saved = state.get("iter", 0)
        self.samples_per_step = batch_size(opt) * opt["world_size"]
        self.samples = state.get("samples", self.iteration * self.samples_per_step)
        self.validated = state.get("validated", self.iteration)  # iteration of the last validation
        self.loader, self.epoch_size = training_loader(opt, self.seed, self.samples)
        self.model = make_model(opt)
        if state:
            self.model.resume_training(state)
            self.logger.info(f"Resuming from iteration {self.iteration}, {opt['path']['resume_state']}")

        # Nothing is moved or written before here, where most mistakes have been found
        self.root = Path(opt["path"]["experiments_root"])
        if distributed.rank() == 0:
            self._make_folder(option_file, log, resumed=bool(state))
        distributed.barrier()
        self.scalars = open_scalars(opt, self.iteration, self._validation_is_due())
        self.monitor = Monitor(opt, self.iteration, self.samples_per_step, self.scalars)

    def _make_folder(self, option_file: str, log: RunLog, resumed: bool) -> None:
        recipe = Path(option_file).read_bytes()  # it may lie in the folder that is moved
        # With --auto_resume a run that ended before its first checkpoint begins again in its place
        unborn = self.opt["auto_resume"] and not any(Path(self.opt["path"]["models"]).glob("*.pth"))
        archived = None if resumed or unborn else archive(self.root)
        for key in ("models", "training_states"):
            remove_leftovers(make_folder(self.opt["path"][key]))
        later = checkpoint.set_aside(self.opt["path"]["training_states"], self.iteration)
        write_atomically(self.root / Path(option_file).name, lambda file: file.write(recipe))
        log.write_to(self.root / f"train_{self.opt['name']}_{get_time_str()}.log")
        self.logger.debug(options_text(self.opt))
        if archived:
            self.logger.info(f"Moved the earlier experiment of this name to {archived}")
        if later:
            self.logger.warning(f"Moved the checkpoints of later iterations to {later}")

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return self.samples // self.epoch_size

    def run(self) -> None:
        """Train to the end. Whatever ends the run, the last whole step is saved before, if its weights are in memory.

        Raises:
            Stopped: when asked to, and saved.
        """
        self.logger.info(
            f"{self.epoch_size} samples per epoch, {self.samples_per_step} per iteration, "
            f"{max(0, self.total - self.iteration)} iterations to go"
        )
        with self.stop:
            try:
                with self.monitor.active(), batches_of(self.loader) as batches:
                    self._train(batches)
            except Stopped:
                raise
            except BaseException:
                if not self.model.changing and self.iteration > self.saved:
                    with suppress(DRCTError):  # the disk may be what failed
                        self._save()
                        self.logger.info(f"Stopped at iteration {self.iteration}, {self._saved()}; {GO_ON}")
                raise
            finally:
                if self.scalars:
                    self.scalars.close()
        self.model.save_weights("latest")
        self.logger.info(f"Trained {self.iteration} iterations: {self.root / 'models' / 'net_g_latest.pth'}")

    def _train(self, batches: Iterator[dict[str, Any]]) -> None:
        if self._validation_is_due():  # the run was stopped before or in it
            self._validate()
        while self.iteration < self.total:
            self._step(batches)
            if self.monitor.report_is_due():
                numbers = self.model.get_current_log()
                self.monitor.report(self.epoch, self.model.get_current_learning_rate(), numbers)
            stopped = distributed.any_process(bool(self.stop))
            if self._validation_is_due() and not stopped:
                self._validate()  # before saving, for the checkpoint to hold its best values
                stopped = distributed.any_process(bool(self.stop))
            due = self.iteration % self.options.logger.save_checkpoint_freq == 0
            if due or stopped or self.iteration == self.total:
                self._save()
            if stopped and (self.iteration < self.total or self._validation_is_due()):
                self._report_stop()

    def _step(self, batches: Iterator[dict[str, Any]]) -> None:
        self.monitor.start_step()
        batch = next(batches)
        self.monitor.data_ready()
        step = self.iteration + 1
        seed_all(STEP, self.seed, step, distributed.rank())
        self.model.update_learning_rate(step, warmup_iter=self.options.train.warmup_iter)
        self.model.feed_data(batch)
        self.model.optimize_parameters(step)
        self.iteration = step
        self.samples += self.samples_per_step
        self.monitor.end_step()

    def _validation_is_due(self) -> bool:
        val = self.options.val
        if not val or not self.val_loaders or self.validated == self.iteration:
            return False
        return self.iteration % val.val_freq == 0 or self.iteration == self.total

    def _validate(self) -> None:
        """Validate on all sets and keep the weights if they are the best. A stop leaves it undone."""
        for loader in self.val_loaders:
            save_images = self.opt["val"]["save_img"]
            table = self.model.validation(
                loader, self.iteration, self.scalars, save_images, should_stop=lambda: bool(self.stop)
            )
            if table is None:
                return
        metric = self.options.logger.save_best
        first: Any = self.val_loaders[0].dataset
        best = self.model.best_metric_results.get(first.opt["name"], {}).get(metric)
        if best and best["iter"] == self.iteration:
            self.model.save_weights("best")
        self.validated = self.iteration

    def _save(self) -> None:
        """Write a checkpoint, then delete those that are too old; but no weights that give no finite loss any more."""
        if self.model.skipped_in_a_row:
            return
        progress = {"samples": self.samples, "seed": self.seed, "validated": self.validated}
        self.model.save(self.epoch, self.iteration, **progress)
        self.saved = self.iteration
        keep = self.options.logger.keep_last
        if keep and distributed.rank() == 0:
            checkpoint.prune(self.opt["path"]["training_states"], keep)

    def _report_stop(self) -> None:
        self.logger.info(f"Stopped at iteration {self.iteration}, {self._saved()}; {GO_ON}")
        raise Stopped(next(number for number in distributed.gather(self.stop.signal_number) if number is not None))

    def _saved(self) -> str:
        return "which is saved" if self.saved == self.iteration else f"iteration {self.saved} is saved"
