"""The training run: steps, checkpoints and validation as an option file says, in one process or several."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from drct.engine import checkpoint, distributed
from drct.engine.distributed import reported_once
from drct.engine.monitor import Monitor, open_scalars
from drct.engine.stopping import Stopped, StopRequest
from drct.errors import DRCTError, one_line_errors
from drct.files import archive, make_folder, write_atomically
from drct.seeding import STEP, seed_all

GO_ON = "--auto_resume goes on from there"


class TrainingRun:
    """Trains into `experiments/<name>`, anew or from a training state, exactly as if it had never been stopped.

    All that a step does follows from the state it begins with and from (seed, iteration, process), so a state holds
    no random generators: the sampler is entered at the number of samples seen, samples and steps seed themselves.

    Args:
        opt: Options, as `parse_options` makes them.
        option_file: Copied to the experiment.
        log: The `RunLog`.
    """

    def __init__(self, opt: dict[str, Any], option_file: str, log) -> None:
        from drct.engine.build import batch_size, evaluation_loaders, make_model, training_loader

        self.opt = opt
        self.stop = StopRequest()
        self.logger = logging.getLogger("basicsr")
        self.total = int(opt["train"]["total_iter"])
        self.val_loaders = evaluation_loaders(opt, "val") if opt.get("val") else []
        state = checkpoint.load_resume_state(opt) or {}
        self.seed = opt["manual_seed"] = state.get("seed", opt["manual_seed"])
        self.iteration = self.saved = state.get("iter", 0)
        self.samples_per_step = batch_size(opt) * opt["world_size"]
        self.samples = state.get("samples", self.iteration * self.samples_per_step)
        self.validated = state.get("validated", self.iteration)  # iteration of the last validation
        self.between_steps = True  # what is in memory is the result of whole steps, and can be saved
        self.loader, self.epoch_size = training_loader(opt, self.seed, self.samples)
        self.model = make_model(opt)

        # Nothing is moved or written before here, where most mistakes have been found
        self.root = Path(opt["path"]["experiments_root"])
        if distributed.rank() == 0:
            self._make_folder(option_file, log, resumed=bool(state))
        distributed.barrier()
        if state:
            self.model.resume_training(state)
            self.logger.info(f"Resuming from iteration {self.iteration}, {opt['path']['resume_state']}")
        self.scalars = open_scalars(opt, self.iteration, self._validation_is_due())
        self.monitor = Monitor(opt, self.iteration, self.samples_per_step, self.scalars)

    def _make_folder(self, option_file: str, log, resumed: bool) -> None:
        from basicsr.utils import get_time_str

        from drct.engine.options import options_text

        recipe = Path(option_file).read_bytes()  # it may lie in the folder that is moved
        # With --auto_resume a run that ended before its first checkpoint begins again in its place
        unborn = self.opt["auto_resume"] and not any(Path(self.opt["path"]["models"]).glob("*"))
        archived = None if resumed or unborn else archive(self.root)
        for key in ("models", "training_states"):
            make_folder(self.opt["path"][key])
        write_atomically(self.root / Path(option_file).name, lambda file: file.write(recipe))
        log.write_to(self.root / f"train_{self.opt['name']}_{get_time_str()}.log")
        self.logger.debug(options_text(self.opt))
        if archived:
            self.logger.info(f"Moved the earlier experiment of this name to {archived}")

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return self.samples // self.epoch_size

    def run(self) -> None:
        """Train to the end. Whatever ends the run between two steps, it saves before.

        Raises:
            Stopped: when asked to, and saved.
        """
        self.logger.info(
            f"{self.epoch_size} samples per epoch, {self.samples_per_step} per iteration, "
            f"{max(0, self.total - self.iteration)} iterations to go"
        )
        try:
            with self.stop, self.monitor.active():
                self._train()
        except BaseException:
            if self.between_steps and self.iteration > self.saved:
                with suppress(DRCTError):  # the disk may be what failed
                    self._save()
                    self.logger.info(f"Stopped at iteration {self.iteration}, which is saved; {GO_ON}")
            raise
        finally:
            if self.scalars:
                self.scalars.close()
        self.model.save_weights("latest")
        self.logger.info(f"Trained {self.iteration} iterations: {self.root / 'models' / 'net_g_latest.pth'}")

    def _train(self) -> None:
        batches = iter(self.loader)
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
            due = self.iteration % int(self.opt["logger"]["save_checkpoint_freq"]) == 0
            if due or stopped or self.iteration == self.total:
                self._save()
            if stopped and self.iteration < self.total:
                self._report_stop()

    def _step(self, batches) -> None:
        self.monitor.start_step()
        batch = next(batches)
        self.monitor.data_ready()
        self.between_steps = False
        step = self.iteration + 1
        seed_all(STEP, self.seed, step, distributed.rank())
        self.model.update_learning_rate(step, warmup_iter=self.opt["train"].get("warmup_iter") or -1)
        self.model.feed_data(batch)
        self.model.optimize_parameters(step)
        self.iteration = step
        self.samples += self.samples_per_step
        self.between_steps = True
        self.monitor.end_step()

    def _validation_is_due(self) -> bool:
        if not self.val_loaders or self.validated == self.iteration:
            return False
        return self.iteration % int(self.opt["val"]["val_freq"]) == 0 or self.iteration == self.total

    def _validate(self) -> None:
        """Validate on all sets and keep the weights if they are the best. A stop leaves it undone."""
        for loader in self.val_loaders:
            save_images = self.opt["val"]["save_img"]
            table = self.model.validation(
                loader, self.iteration, self.scalars, save_images, should_stop=lambda: bool(self.stop)
            )
            if table is None:
                return
        self.validated = self.iteration
        metric = self.opt["logger"].get("save_best")
        first = next(options["name"] for phase, options in sorted(self.opt["datasets"].items()) if phase != "train")
        if metric and self.model.best_metric_results.get(first, {}).get(metric, {}).get("iter") == self.iteration:
            self.model.save_weights("best")

    def _save(self) -> None:
        """Write a checkpoint, then delete those that are too old."""
        progress = {"samples": self.samples, "seed": self.seed, "validated": self.validated}
        self.model.save(self.epoch, self.iteration, **progress)
        self.saved = self.iteration
        keep = self.opt["logger"].get("keep_last")
        if keep and distributed.rank() == 0:
            checkpoint.prune(self.opt["path"]["training_states"], int(keep))

    def _report_stop(self) -> None:
        self.logger.info(f"Stopped at iteration {self.iteration}, which is saved; {GO_ON}")
        raise Stopped(distributed.from_first(self.stop.signal_number))


@one_line_errors
@reported_once
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct/train.py`.

    Returns:
        0, 2 if training could not start or go on, or 128 plus the signal's number if Ctrl-C or SIGTERM stopped it.
    """
    import drct  # noqa: F401 - registers everything
    from drct.engine.log import RunLog
    from drct.engine.options import parse_options

    with RunLog() as log:
        opt, args = parse_options(Path.cwd(), is_train=True, argv=argv)
        torch.backends.cudnn.benchmark = True  # patches have one size
        try:
            TrainingRun(opt, args.opt, log).run()
        except Stopped as stopped:
            return stopped.status
        return 0
