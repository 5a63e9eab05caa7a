"""DRCTModel: what a training step and a validation do with a super-resolution network, on BasicSR's SRModel."""

import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, tensor2img
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import MODEL_REGISTRY
from torch import nn
from torch.utils.data import default_collate
from tqdm import tqdm

from drct.archs.traits import traits_of
from drct.errors import DRCTError, did_you_mean
from drct.evaluation.metric_table import MetricTable
from drct.evaluation.metrics import Measures
from drct.images.bgr import read_image, write_png
from drct.images.listing import IMAGE_SUFFIXES
from drct.inference.runner import NetworkRunner
from drct.runtime import checkpoint, distributed
from drct.runtime.device import PRECISIONS, device_for, resolve_num_gpu

SKIPPED_AT_MOST = 30  # steps in a row that are not finite; finding the scale of fp16 takes about 16
PROGRESS_OF_SCHEDULES = {"last_epoch", "_step_count", "_last_lr", "T_cur", "T_i", "_is_initial"}
PROGRESS_OF_SCHEDULES |= {"_get_lr_called_within_step", "base_lrs", "verbose"}
UNSUITABLE = {"LBFGS", "Optimizer", "LRScheduler", "ReduceLROnPlateau"}  # their steps take more than the others'


@MODEL_REGISTRY.register()
class DRCTModel(SRModel):
    """BasicSR's SRModel for networks of windows: any image size, tiles, per-image metrics, safe files.

    Options beyond BasicSR's: `tile: {tile_size, tile_pad}`, or `tile: auto` for tiles where an image needs more memory
    than is free; `precision` (of inference: fp32, bf16 or fp16); `self_ensemble` (average over the 8 rotations and
    reflections); `train.precision` (fp32, bf16 or fp16, the latter with scaled losses), `train.accumulation` (parts of
    a batch, one after the other), `train.grad_clip` (largest norm of the gradient), `train.compile` (torch.compile),
    `train.ema_warmup` (let the EMA forget the initial weights, for short runs), the optimizers of `torch.optim` and
    schedules of `torch.optim.lr_scheduler` whose steps take no arguments.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        opt["num_gpu"] = resolve_num_gpu(opt["num_gpu"], get_root_logger())
        opt["path"].setdefault("param_key_g", "params_ema")
        super().__init__(opt)
        self.measures = Measures((opt.get("val") or {}).get("metrics") or {}, self.device)
        self.tile: tuple[int, int] | str | None = opt.get("tile")
        if isinstance(tile := self.tile, dict):
            self.tile = (tile["tile_size"], tile.get("tile_pad", 0))

    # ------------------------------------------------------------------------------------------------------ network

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Put the network on the device that `num_gpu` asks for, and join the networks of several processes."""
        self.device = device_for(self.opt["num_gpu"])
        net = net.to(self.device)
        if self.is_train and self.opt["train"].get("compile"):
            net.compile()  # in place: names of parameters stay
        if self.opt["dist"] and self.is_train:
            gpus = [torch.cuda.current_device()] if self.device.type == "cuda" else None
            unused = self.opt.get("find_unused_parameters", False)
            return nn.parallel.DistributedDataParallel(net, device_ids=gpus, find_unused_parameters=unused)
        if self.opt["num_gpu"] > 1 and not self.opt["dist"]:
            return nn.DataParallel(net)
        return net

    def print_network(self, net: nn.Module) -> None:
        """Log the network's name and size; BasicSR also prints every layer."""
        net = self.get_bare_model(net)
        parameters = sum(p.numel() for p in net.parameters())
        get_root_logger().info(f"Network {type(net).__name__} with {parameters:,} parameters on {self.device}")

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"):
        """Load weights without running code. Raises `DRCTError` that says what does not fit."""
        logger = get_root_logger()
        weights, used_key = checkpoint.read_weights(load_path, param_key)
        if used_key != param_key:
            logger.warning(f"{load_path} has no {param_key}: using {used_key or 'its bare state dict'}")
        differences = checkpoint.load_weights(self.get_bare_model(net), weights, strict, load_path)
        logger.info(f"Loaded {used_key or 'weights'} of {load_path}")
        for difference in differences:
            logger.warning(f"not loaded: {difference}")

    # ----------------------------------------------------------------------------------------------------- training

    def init_training_settings(self) -> None:
        """Losses, optimizer, schedule and EMA."""
        train_opt = self.opt["train"]
        precision = train_opt.get("precision", "fp32")
        self.low_precision = PRECISIONS[precision]
        if precision == "bf16" and isinstance(self.net_g, nn.DataParallel):
            # Its threads take autocast's default, fp16, which needs scaled losses
            raise DRCTError("train.precision: bf16 does not go with DataParallel: use torchrun, or set num_gpu: 1")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.accumulation = int(train_opt.get("accumulation") or 1)
        self.grad_clip = train_opt.get("grad_clip") or math.inf
        self.ema_warmup = bool(train_opt.get("ema_warmup", False))
        self.skipped_in_a_row = 0
        self.changing = False  # whether the weights are being changed, and cannot be saved
        # Of fp16, whose first steps may be left out until the scale is found
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        super().init_training_settings()
        if self.ema_decay > 0 and not self.opt["path"].get("strict_load_g", True):
            self.model_ema(0)  # what the file did not fill is random, and not the same in both networks

    def get_optimizer(self, optim_type: str, params, lr: float, **kwargs) -> torch.optim.Optimizer:
        """Any optimizer of `torch.optim`, by its name."""
        return _by_name(torch.optim, torch.optim.Optimizer, "train.optim_g", optim_type, params, lr=lr, **kwargs)

    def setup_schedulers(self) -> None:
        """BasicSR's schedules, or any of `torch.optim.lr_scheduler`, by name."""
        options = dict(self.opt["train"]["scheduler"])
        kind = options.pop("type")
        if kind in ("MultiStepLR", "MultiStepRestartLR", "CosineAnnealingRestartLR"):
            self.opt["train"]["scheduler"] = dict(self.opt["train"]["scheduler"])  # BasicSR takes out its type
            try:
                super().setup_schedulers()
            except (AssertionError, TypeError, ValueError) as error:
                raise DRCTError(f"train.scheduler: {kind}: {error}") from error
            return
        module, base = torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler
        self.schedulers = [
            _by_name(module, base, "train.scheduler", kind, optimizer, **options) for optimizer in self.optimizers
        ]

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the learning rate of a step: the schedule's, times a linear warm-up in the first `warmup_iter` steps.

        As in BasicSR, where the warm-up is right for its own schedules only.
        """
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group in groups:  # schedules go on from the rate that they find
            group["lr"] = group.pop("scheduled_lr", group["lr"])
        for scheduler in self.schedulers:
            # Not a second time after resuming from a step that failed
            if scheduler.last_epoch < current_iter - 1:
                scheduler.step()
        if current_iter < warmup_iter:
            for group in groups:
                group["scheduled_lr"] = group["lr"]
                group["lr"] *= current_iter / warmup_iter

    def optimize_parameters(self, current_iter: int) -> None:
        """One step on the batch of `feed_data`, in `accumulation` parts.

        A step whose loss or gradient is not finite in any process is left out, in all of them, with a warning.

        Raises:
            DRCTError: if `SKIPPED_AT_MOST` steps in a row were left out, or the GPU's memory does not suffice.
        """
        try:
            self._compute_gradients()
        except torch.cuda.OutOfMemoryError as error:
            raise DRCTError(
                "out of memory: set a smaller batch_size_per_gpu (train.accumulation makes up for it), network_g."
                "use_checkpoint: true or train.precision: bf16"
            ) from error
        self.scaler.unscale_(self.optimizer_g)
        self.grad_norm = nn.utils.clip_grad_norm_(self.net_g.parameters(), self.grad_clip)  # the same in all processes
        finite = bool(self.grad_norm.isfinite())
        self.changing = True
        if finite:
            self.scaler.step(self.optimizer_g)
        self.scaler.update()
        if finite and self.ema_decay > 0:
            # In a short run the initial weights would keep a share of decay ** iterations in the average
            warm = (1 + current_iter) / (10 + current_iter) if self.ema_warmup else 1
            self.model_ema(decay=min(self.ema_decay, warm))
        self.changing = False
        self._count_skipped(finite, current_iter)

    def _compute_gradients(self) -> None:
        self.optimizer_g.zero_grad()
        parts = list(zip(self.lq.chunk(self.accumulation), self.gt.chunk(self.accumulation), strict=True))
        self.losses: dict[str, torch.Tensor] = {}
        for i, (lq, gt) in enumerate(parts):
            # Processes add up their gradients after the last part
            alone = isinstance(self.net_g, nn.parallel.DistributedDataParallel) and i < len(parts) - 1
            with self.net_g.no_sync() if alone else nullcontext():
                self._backward(lq, gt, len(lq) / len(self.lq))

    def _backward(self, lq: torch.Tensor, gt: torch.Tensor, share: float) -> None:
        """Add the gradients and losses of a part of the batch."""
        with self._autocast(self.low_precision):
            output = self.net_g(lq)
        losses = self._losses(output.float(), gt)
        total = torch.stack(list(losses.values())).sum() * share
        # An infinite loss can have finite gradients: make them show it, in every process
        sound = torch.where(total.detach().isfinite(), 1.0, math.nan)
        self.scaler.scale(total * sound).backward()
        for name, loss in losses.items():
            self.losses[name] = self.losses.get(name, 0) + loss.detach() * share

    def _losses(self, output: torch.Tensor, gt: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = {}
        if self.cri_pix:
            losses["l_pix"] = self.cri_pix(output, gt)
        if self.cri_perceptual:
            perceptual, style = self.cri_perceptual(output, gt)
            losses |= {"l_percep": perceptual} if perceptual is not None else {}
            losses |= {"l_style": style} if style is not None else {}
        return losses

    def _count_skipped(self, finite: bool, current_iter: int) -> None:
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if finite:
            return
        losses = ", ".join(f"{name} {loss:.4g}" for name, loss in self.losses.items())
        if self.skipped_in_a_row >= SKIPPED_AT_MOST:
            raise DRCTError(
                f"training stopped at iteration {current_iter}: loss or gradient was not finite in "
                f"{SKIPPED_AT_MOST} steps in a row ({losses}). The weights before them are in the last checkpoint. "
                "Try a lower train.optim_g.lr, train.grad_clip, or precision bf16 or fp32, and look at the data"
            )
        # With fp16 the scale is found by trying
        level = logging.DEBUG if self.scaler.is_enabled() and self.losses_are_finite() else logging.WARNING
        get_root_logger().log(
            level, f"iteration {current_iter} changes nothing: loss ({losses}) or gradient is not finite"
        )

    def losses_are_finite(self) -> bool:
        """Whether those of the last step are, in this process."""
        return all(math.isfinite(loss) for loss in self.losses.values())

    def get_current_log(self) -> dict[str, float]:
        """Losses of the last step, averaged over the processes, all of which must ask, and the gradient's norm."""
        values = distributed.average(torch.stack([*self.losses.values(), self.grad_norm]))
        return dict(zip([*self.losses, "grad_norm"], values.tolist(), strict=True))

    def save(self, epoch: int, current_iter: int, **progress: Any) -> None:
        """Write `<models>/net_g_<iter>.pth`, then `<training_states>/<iter>.state`, which makes it a checkpoint.

        Args:
            epoch: The epoch.
            current_iter: The iteration; -1 writes `net_g_latest.pth` and no state.
            progress: More to store in the state.
        """
        self.save_weights("latest" if current_iter == -1 else current_iter)
        if current_iter != -1:
            self.save_training_state(epoch, current_iter, **progress)

    def save_weights(self, label: int | str) -> None:
        """Write `<models>/net_g_<label>.pth`, whole or not at all; a failure is an error, not a warning.

        It holds `params` and, with an EMA, `params_ema`. Only the first process writes.
        """
        if distributed.rank() != 0:
            return
        networks = {"params": self.get_bare_model(self.net_g)}
        if self.ema_decay > 0:
            networks["params_ema"] = self.net_g_ema
        content = {
            key: {name: value.cpu() for name, value in network.state_dict().items()}
            for key, network in networks.items()
        }
        _share_equal(content["params"], content.get("params_ema", {}))
        checkpoint.save(Path(self.opt["path"]["models"], f"net_g_{label}.pth"), content)

    def save_training_state(self, epoch: int, current_iter: int, **progress: Any) -> None:
        """Write `<training_states>/<iter>.state`, whole or not at all. Only the first process writes."""
        if distributed.rank() != 0:
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [_plain(scheduler.state_dict()) for scheduler in self.schedulers],
            "kinds": self._kinds(),
            "scaler": self.scaler.state_dict(),
            "best_metric_results": getattr(self, "best_metric_results", {}),
            **progress,
        }
        checkpoint.save(Path(self.opt["path"]["training_states"], f"{current_iter}.state"), state)

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Go on from a training state. Raises `DRCTError` if it is that of another optimizer or schedule."""
        try:
            own, theirs = self._kinds(), resume_state.get("kinds")
            if theirs not in (None, own):
                raise ValueError(f"{', '.join(theirs)} is not {', '.join(own)}")
            self._compare_schedules(resume_state["schedulers"])
            super().resume_training(resume_state)
        except (AssertionError, KeyError, ValueError) as error:
            raise DRCTError(
                f"the training state does not fit the option file's optimizer, schedule or network: {error}. To begin "
                "anew from its weights, use path.pretrain_network_g instead"
            ) from error
        warmup = self.opt["train"].get("warmup_iter") or -1
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            by_basicsr = "kinds" not in resume_state
            if by_basicsr and resume_state["iter"] < warmup and "scheduled_lr" not in group:
                group["scheduled_lr"] = group["initial_lr"]
        if resume_state.get("scaler"):
            self.scaler.load_state_dict(resume_state["scaler"])
        self.best_metric_results = resume_state.get("best_metric_results", {})

    def _kinds(self) -> list[str]:
        """The classes of optimizers and schedules."""
        return [type(thing).__name__ for thing in (*self.optimizers, *self.schedulers)]

    def _compare_schedules(self, saved: list[dict[str, Any]]) -> None:
        """Tell that a state's schedule goes on where the option file has another one."""
        for scheduler, theirs in zip(self.schedulers, saved, strict=True):
            own = _plain(scheduler.state_dict())
            changed = [
                f"{key} {value} (the option file: {own[key]})"
                for key, value in theirs.items()
                if key in own and key not in PROGRESS_OF_SCHEDULES and own[key] != value
            ]
            if changed:
                get_root_logger().warning(f"the schedule of the training state goes on: {', '.join(changed)}")
            if theirs.get("total_steps", math.inf) < int(self.opt["train"]["total_iter"]):
                raise ValueError(
                    f"its schedule ends after total_steps {theirs['total_steps']}, before train.total_iter"
                )

    # ---------------------------------------------------------------------------------------------------- inference

    def test(self) -> None:
        """Upscale `self.lq`, of any size, into `self.output`; with the EMA weights where there are some."""
        network = getattr(self, "net_g_ema", None) or self.get_bare_model(self.net_g)
        precision, ensemble = self.opt.get("precision", "fp32"), bool(self.opt.get("self_ensemble", False))
        traits = traits_of(self.get_bare_model(self.net_g), self.opt.get("scale", 1), self.opt["network_g"])
        self.output = NetworkRunner(network, self.device, precision, self.tile, ensemble, traits).run(self.lq)

    def _autocast(self, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()

    def validation(
        self,
        dataloader,
        current_iter: int | str,
        tb_logger,
        save_img: bool = False,
        on_image: Callable[[str, dict[str, np.ndarray], MetricTable], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> MetricTable | None:
        """Upscale every image of a dataset; save images and metrics, per image and their mean.

        An image that cannot be read or processed is reported in the log and in the table; the others go on. Several
        processes share the images and end with the same table.

        Args:
            dataloader: Its dataset is used, one image after the other.
            current_iter: Training iteration, or the name of a test run.
            tb_logger: TensorBoard writer or None.
            save_img: Whether to save the upscaled images.
            on_image: Called with the name and the pictures of each image: `lq`, `img` (the result) and, with ground
                truth, `img2` and `bicubic`; (H, W, 3), BGR, uint8; and the table so far.
            should_stop: Asked after each image.

        Returns:
            The table, also written as `metrics_<dataset>.csv` and `.json` to the run's folder; None if any process was
            told to stop.
        """
        dataset = dataloader.dataset
        iteration = int(current_iter) if self.opt["is_train"] else None
        show_bicubic = any(self.opt["val"].get(key) for key in ("bicubic", "comparison"))
        table = MetricTable(dataset.opt["name"], iteration, show_bicubic)
        paths = _image_paths(dataset)
        names = _unique_names(paths)
        order = sorted(range(len(dataset)), key=lambda index: names[index])  # not the file system's
        mine = order[distributed.rank() :: distributed.world_size()]
        progress = tqdm(mine, table.dataset, unit="image", leave=False, disable=True if distributed.rank() else None)
        for index in progress:
            if should_stop():
                break
            progress.set_postfix_str(names[index])
            if Path(paths[index]).is_file() and Path(paths[index]).suffix.lower() not in IMAGE_SUFFIXES:
                get_root_logger().info(f"{paths[index]} is not an image by its name: skipped")
                continue
            try:
                self.feed_data(_read(dataset, index))
                self.test()
                pictures = self._pictures(show_bicubic or on_image is not None)
            except torch.cuda.OutOfMemoryError as error:
                raise DRCTError(
                    f"out of memory on {paths[index]}, {tuple(self.lq.shape[-2:])} pixels: set tile: auto, or tile: "
                    "{tile_size: 256, tile_pad: 32} or a smaller tile_size, in the option file"
                ) from error
            except Exception as error:  # a broken file raises whatever its decoder raises
                table.fail(paths[index], str(error) or type(error).__name__)
                continue
            if save_img:
                write_png(self.image_file(table.dataset, names[index], current_iter), pictures["img"])
            try:
                self._measure(table, names[index], pictures)
            except Exception as error:  # a metric raises anything, as for a ground truth of another size
                table.fail(paths[index], str(error))
            if on_image:
                on_image(names[index], pictures, table)
        progress.close()
        if distributed.any_process(should_stop()):
            return None
        table = MetricTable.joined(distributed.gather(table))
        self._finish_validation(table, tb_logger)
        return table

    def nondist_validation(self, dataloader, current_iter, tb_logger, save_img: bool) -> None:
        """BasicSR's name of `validation`."""
        self.validation(dataloader, current_iter, tb_logger, save_img)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: `lq` and perhaps `gt`, (B, C, H, W), RGB in [0, 1]."""
        self.__dict__.pop("gt", None)
        super().feed_data(data)

    def _pictures(self, with_bicubic: bool) -> dict[str, np.ndarray]:
        """The current image as BasicSR's metrics take it; bicubic's where there is ground truth to compare it with."""
        pictures = {"lq": tensor2img(self.lq), "img": tensor2img(self.output)}
        if hasattr(self, "gt"):
            pictures["img2"] = tensor2img(self.gt)
            if with_bicubic:
                pictures["bicubic"] = tensor2img(imresize(self.lq[0].float().cpu(), self.opt["scale"]))
        return pictures

    def _measure(self, table: MetricTable, name: str, pictures: dict[str, np.ndarray]) -> None:
        truth = pictures.get("img2")
        if values := self.measures.measure(pictures["img"], truth):
            table.add(name, values)
            if "bicubic" in pictures:
                table.add_bicubic(name, self.measures.measure(pictures["bicubic"], truth))

    def _initialize_best_metric_results(self, dataset_name: str) -> None:
        """Add what the record lacks: a dataset, or a metric that a resumed run did not have."""
        records = self.__dict__.setdefault("best_metric_results", {}).setdefault(dataset_name, {})
        for metric, options in (self.opt["val"].get("metrics") or {}).items():
            better = options.get("better", "higher")
            worst = math.inf if better == "lower" else -math.inf
            records.setdefault(metric, {"better": better, "val": worst, "iter": -1})

    def image_file(self, dataset_name: str, name: str, current_iter) -> Path:
        """Where the result of an image is saved."""
        folder = Path(self.opt["path"]["visualization"])
        if self.opt["is_train"]:
            return folder / name / f"{name}_{current_iter}.png"
        return folder / dataset_name / f"{name}_{self.opt['val'].get('suffix') or self.opt['name']}.png"

    def _finish_validation(self, table: MetricTable, tb_logger) -> None:
        logger = get_root_logger()
        for path, reason in table.failed.items():
            logger.error(f"{path} was left out: {reason.replace(f'cannot read image {path}: ', 'cannot be read: ')}")
        self.metric_results = table.mean()
        if not self.metric_results and not table.failed:
            return
        if distributed.rank() != 0:
            pass
        elif self.opt["is_train"]:
            table.write(Path(self.opt["path"]["experiments_root"], "metrics"), suffix=f"_{table.iteration}")
        else:
            table.write(Path(self.opt["path"]["results_root"]))
        if self.metric_results:
            logger.info(f"{table.dataset}\n{table.text()}")
        self._initialize_best_metric_results(table.dataset)
        for metric, value in self.metric_results.items():
            self._update_best_metric_result(table.dataset, metric, value, table.iteration)
            if self.opt["is_train"]:
                best = self.best_metric_results[table.dataset][metric]
                logger.info(f"{table.dataset} {metric}: {value:.4f}, best {best['val']:.4f} at {best['iter']}")
            if tb_logger:
                tb_logger.add_scalar(f"metrics/{table.dataset}/{metric}", value, table.iteration)


def _image_paths(dataset) -> list[str]:
    """The files of a dataset's images, without reading them."""
    return [path.get("lq_path") or path["gt_path"] if isinstance(path, dict) else path for path in dataset.paths]


def _unique_names(paths: list[str]) -> list[str]:
    """File names without suffix; where two would become one, with the suffix, or with the folders too."""
    stems = Counter(Path(path).stem for path in paths)
    names = [Path(path).stem if stems[Path(path).stem] == 1 else _flat(Path(path).name) for path in paths]
    return names if len(set(names)) == len(names) else [_flat(Path(path).as_posix()) for path in paths]


def _flat(path: str) -> str:
    return re.sub(r"[/.:]+", "_", path).strip("_")


def _read(dataset, index: int) -> dict[str, Any]:
    """A batch of one image. Raises `DRCTError` with what is wrong with its file."""
    try:
        return default_collate([dataset[index]])
    except Exception:  # BasicSR's datasets stumble over what a decoder returned for a broken file
        entry = dataset.paths[index]
        for path in entry.values() if isinstance(entry, dict) else [entry]:
            if Path(path).is_file():
                read_image(path)  # says what is wrong with it
        raise


def _share_equal(entries: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    """Let equal tensors of two state dicts, such as computed ones, be one, which `torch.save` writes once."""
    for name in others:
        if torch.equal(entries[name], others[name]):
            others[name] = entries[name]


def _plain(value: Any) -> Any:
    """Counters, which weights_only loading refuses in some versions of PyTorch, as dicts."""
    return {key: dict(v) if isinstance(v, dict) else deepcopy(v) for key, v in value.items()}


def _by_name(module, base: type, where: str, name: str, *args, **kwargs):
    """Make an object of a class of `module`, with errors that name the option."""
    cls = getattr(module, name, None)
    if not (isinstance(cls, type) and issubclass(cls, base)) or name in UNSUITABLE:
        known = [n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, base) and n[0] != "_"]
        known = [n for n in known if n not in UNSUITABLE]
        hint = did_you_mean(name, known) or f"; there are {', '.join(sorted(known))}"
        raise DRCTError(f"{where}.type {name!r} is unknown{hint}")
    try:
        return cls(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise DRCTError(f"{where}: {error}") from error
