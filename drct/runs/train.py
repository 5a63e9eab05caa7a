"""A training run: steps, validation and checkpoints as an option file says, in one process or several."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from basicsr.utils import get_time_str

from drct.errors import DRCTError
from drct.files import archive, make_folder, remove_leftovers, write_bytes
from drct.runs import training_states
from drct.runs.build import batch_size, batches_of, evaluation_loaders, make_model, training_loader
from drct.runs.first_batch import save_first_batch
from drct.runs.log import RunLog
from drct.runs.options import options_text
from drct.runs.progress import Monitor, open_scalars
from drct.runs.signals import Stopped, StopRequest
from drct.runtime import distributed
from drct.schema.options import TrainingOptions
from drct.seeding import STEP, seed_all

logger = logging.getLogger("basicsr")


class TrainingRun:
    """A run that trains into `experiments/<name>`. A run that is stopped and resumed ends as one that never stopped.

    A step depends only on the state before it and on (seed, iteration, process), so a training state holds no random
    generators: the order of samples is entered at the number of samples seen, and samples and steps seed themselves.

    Args:
        opt: Result of `read_options`.
        option_file: Path of the option file, which is copied to the experiment.
        log: Log of the run.
    """

    def __init__(self, opt: dict[str, Any], option_file: str, log: RunLog) -> None:
        state, paths = training_states.state_to_resume(opt) or ({}, {})
        self.seed = state.get("seed", opt["manual_seed"])
        if self.seed != opt["manual_seed"] and not opt.get("seed_is_random"):
            logger.warning(
                f"manual_seed is {opt['manual_seed']} in the option file but {self.seed} in the training state, which "
                "stays: a run has one seed"
            )
        self.opt = opt = opt | {"path": opt["path"] | paths, "manual_seed": self.seed}
        self.options = TrainingOptions.model_validate(opt)
        self.stop = StopRequest()
        self.total = self.options.train.total_iter
        self.val_loaders = evaluation_loaders(opt, "val") if self.options.val else []
        self.iteration = self.saved = state.get("iter", 0)
        self.samples_per_step = batch_size(opt) * opt["world_size"]
        self.samples = state.get("samples", self.iteration * self.samples_per_step)
        self.validated = state.get("validated", self.iteration)  # iteration of the last validation
        self.loader, self.epoch_size = training_loader(opt, self.seed, self.samples)
        self.model = make_model(opt)
        if state:
            self.model.resume_training(state)
            logger.info(f"Resuming from iteration {self.iteration}, {opt['path']['resume_state']}")

        # Nothing is moved or written before this point, since most mistakes have been found by now
        self.root = Path(opt["path"]["experiments_root"])
        if distributed.rank() == 0:
            self._make_folder(option_file, log, resumed=bool(state))
        distributed.barrier()
        self.scalars = open_scalars(opt, self.iteration, self._validation_is_due())
        self.monitor = Monitor(opt, self.iteration, self.samples_per_step, self.scalars)

    def _make_folder(self, option_file: str, log: RunLog, resumed: bool) -> None:
        recipe = Path(option_file).read_bytes()  # it may lie in the folder that is moved
        # With --auto_resume, a run that ended before its first checkpoint starts again in its own folder
        restarted = self.opt["auto_resume"] and not any(Path(self.opt["path"]["models"]).glob("*.pth"))
        log.ownership.take(self.root)
        archived = None if resumed or restarted else archive(self.root)
        for key in ("models", "training_states"):
            make_folder(self.opt["path"][key])
        remove_leftovers(self.root, recursive=True)
        later = training_states.set_aside(self.opt["path"]["training_states"], self.iteration)
        write_bytes(self.root / Path(option_file).name, recipe)
        log.write_to(self.root / f"train_{self.opt['name']}_{get_time_str()}.log")
        logger.debug(options_text(self.opt))
        if archived:
            logger.info(f"Moved the earlier experiment of this name to {archived}")
        if later:
            logger.warning(f"Moved the checkpoints of later iterations to {later}")

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return self.samples // self.epoch_size

    def run(self) -> None:
        """Train to the end. If an error ends the run, its last completed step is saved first where possible.

        Raises `Stopped` if a signal asked the run to stop, after a checkpoint was saved.
        """
        logger.info(
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
                    with suppress(DRCTError):  # the disk may be full
                        self._save()
                        self._log_stop()
                raise
            finally:
                if self.scalars:
                    self.scalars.close()
        self.model.check_outcome()
        self.model.save_weights("latest")
        logger.info(f"Steps waited for images for {self.monitor.waited():.1%} of their time")
        logger.info(f"Trained {self.iteration} iterations: {self.root / 'models' / 'net_g_latest.pth'}")

    def _train(self, batches: Iterator[dict[str, Any]]) -> None:
        if self._validation_is_due():  # the run was stopped before or in it
            self._validate()
        while self.iteration < self.total:
            self._step(batches)
            if self.iteration % self.options.logger.print_freq == 0:
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
                self._log_stop()
                asked = distributed.gather(self.stop.signal_number)
                raise Stopped(next(number for number in asked if number is not None))

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
        if step == 1:
            save_first_batch(self.model, Path(self.opt["path"]["visualization"], "first_batch.png"))

    def _validation_is_due(self) -> bool:
        val = self.options.val
        if not val or not self.val_loaders or self.validated == self.iteration:
            return False
        return self.iteration % val.val_freq == 0 or self.iteration == self.total

    def _validate(self) -> None:
        """Validate on all datasets and save the weights if they are the best; a stop leaves it to the resumed run."""
        for loader in self.val_loaders:
            save_images = self.opt["val"]["save_img"]
            table = self.model.validation(
                loader, self.iteration, self.scalars, save_images, should_stop=lambda: bool(self.stop)
            )
            if table is None:
                return
        metric = self.options.logger.save_best
        first: Any = self.val_loaders[0].dataset
        best = self.model.validator.best.get(first.opt["name"], {}).get(metric)
        if best and best["iter"] == self.iteration:
            self.model.save_weights("best")
        self.validated = self.iteration

    def _save(self) -> None:
        """Write a checkpoint and delete those beyond `keep_last`."""
        if self.model.skipped_in_a_row:
            return  # the loss of these weights is not finite
        progress = {"samples": self.samples, "seed": self.seed, "validated": self.validated}
        self.model.save(self.epoch, self.iteration, **progress)
        self.saved = self.iteration
        keep = self.options.logger.keep_last
        if keep and distributed.rank() == 0:
            training_states.prune(self.opt["path"]["training_states"], keep)

    def _log_stop(self) -> None:
        saved = "which is saved" if self.saved == self.iteration else f"iteration {self.saved} is saved"
        logger.info(f"Stopped at iteration {self.iteration}, {saved}; --auto_resume goes on from there")
