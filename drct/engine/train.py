"""The training run: steps, log, checkpoints and validation as an option file says, in one process."""

import math
from pathlib import Path
from typing import Any

import torch

from drct.engine.checkpoint import load_resume_state
from drct.errors import DRCTError, one_line_errors
from drct.files import archive


def run(opt: dict[str, Any], option_file: str, log) -> None:
    """Train into `experiments/<name>`; go on from `path.resume_state` or, with `auto_resume`, the newest state.

    Without a state to resume from, an experiment of that name is moved aside. Whatever ends the run early, Ctrl-C
    too, a checkpoint is saved before.

    Args:
        opt: Options, as `parse_options` makes them.
        option_file: Copied to the experiment.
        log: The `RunLog`.
    """
    from basicsr.utils import AvgTimer, MessageLogger, get_root_logger, get_time_str

    from drct.engine.build import evaluation_loaders, make_model
    from drct.engine.options import options_text

    logger = get_root_logger()
    root = Path(opt["path"]["experiments_root"])
    recipe = Path(option_file).read_bytes()  # it may lie in the folder that is moved
    train_loader, sampler = _train_loader(opt)
    val_loaders = evaluation_loaders(opt, "val") if opt.get("val") else []
    state = load_resume_state(opt)
    model = make_model(opt)

    # Nothing is moved or written before here, where most mistakes have been found
    archived = archive(root) if state is None else None
    for key in ("models", "training_states"):
        Path(opt["path"][key]).mkdir(parents=True, exist_ok=True)
    (root / Path(option_file).name).write_bytes(recipe)
    log.write_to(root / f"train_{opt['name']}_{get_time_str()}.log")
    logger.debug(options_text(opt))
    if archived:
        logger.info(f"Moved the earlier experiment of this name to {archived}")
    tb_logger = _tensorboard(opt, fresh=state is None)

    total = int(opt["train"]["total_iter"])
    iteration, epoch = 0, 0
    if state is not None:
        model.resume_training(state)
        iteration, epoch = state["iter"], state["epoch"]
        logger.info(f"Resuming from iteration {iteration} of epoch {epoch}")
    logger.info(f"{len(train_loader.dataset)} images, {len(train_loader)} iterations per epoch, {total} in total")

    message = MessageLogger(opt, iteration + 1, tb_logger)
    data_timer, iter_timer = AvgTimer(), AvgTimer()
    saved = iteration
    try:
        while iteration < total:
            sampler.set_epoch(epoch)
            for batch in train_loader:
                data_timer.record()
                model.update_learning_rate(iteration + 1, warmup_iter=opt["train"].get("warmup_iter", -1))
                model.feed_data(batch)
                model.optimize_parameters(iteration + 1)
                iteration += 1
                iter_timer.record()
                if iteration % int(opt["logger"]["print_freq"]) == 0:
                    times = {"time": iter_timer.get_avg_time(), "data_time": data_timer.get_avg_time()}
                    head = {"epoch": epoch, "iter": iteration, "lrs": model.get_current_learning_rate()}
                    message(head | times | model.get_current_log())
                if val_loaders and (iteration % int(opt["val"]["val_freq"]) == 0 or iteration == total):
                    for val_loader in val_loaders:
                        model.validation(val_loader, iteration, tb_logger, opt["val"]["save_img"])
                if iteration % int(opt["logger"]["save_checkpoint_freq"]) == 0:
                    model.save(epoch, iteration)  # after validation, to hold its best values
                    saved = iteration
                data_timer.start()
                iter_timer.start()
                if iteration == total:
                    break
            epoch += 1
    except BaseException:
        if iteration > saved:
            model.save(epoch, iteration)
        logger.info(f"Stopped at iteration {iteration}, which is saved; --auto_resume goes on from there")
        raise
    model.save(epoch, -1)
    logger.info(f"Trained {iteration} iterations: {root / 'models' / 'net_g_latest.pth'}")
    if tb_logger:
        tb_logger.close()


def _train_loader(opt: dict[str, Any]):
    """Loader of the training set and its sampler, whose order depends on the epoch alone."""
    from basicsr.data import build_dataloader
    from basicsr.data.data_sampler import EnlargedSampler

    from drct.engine.build import SkipUnusable, make_dataset

    options = dict(opt["datasets"]["train"])
    options["persistent_workers"] = bool(options.get("persistent_workers")) and options["num_worker_per_gpu"] > 0
    dataset = SkipUnusable(make_dataset("train", options))
    batch_size = options["batch_size_per_gpu"] * max(1, opt["num_gpu"])
    # An epoch holds at least one batch, however small the set
    ratio = max(options.get("dataset_enlarge_ratio") or 1, math.ceil(batch_size / len(dataset)))
    sampler = EnlargedSampler(dataset, num_replicas=1, rank=0, ratio=ratio)
    loader = build_dataloader(
        dataset, options, num_gpu=opt["num_gpu"], dist=False, sampler=sampler, seed=opt["manual_seed"]
    )
    return loader, sampler


def _tensorboard(opt: dict[str, Any], fresh: bool):
    """TensorBoard writer of `tb_logger/<name>`, which Weights & Biases follows if it is asked for; or None."""
    from basicsr.utils import init_tb_logger, init_wandb_logger

    if not opt["logger"]["use_tb_logger"] or opt["name"].startswith("debug"):
        return None
    folder = Path(opt["path"]["experiments_root"]).parents[1] / "tb_logger" / opt["name"]
    if fresh:
        archive(folder)
    if (opt["logger"].get("wandb") or {}).get("project"):
        try:
            init_wandb_logger(opt)
        except ImportError as error:
            raise DRCTError("logger.wandb.project is set, but wandb is not installed: pip install wandb") from error
    return init_tb_logger(log_dir=str(folder))


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct/train.py`. Returns 0, or 2 if training could not start or go on."""
    import drct  # noqa: F401 - registers everything
    from drct.engine.log import RunLog
    from drct.engine.options import parse_options

    log = RunLog()
    try:
        opt, args = parse_options(Path.cwd(), is_train=True, argv=argv)
        torch.backends.cudnn.benchmark = True  # patches have one size
        run(opt, args.opt, log)
        return 0
    finally:
        log.close()
