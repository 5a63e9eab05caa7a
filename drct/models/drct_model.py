"""DRCTModel: training, validation and checkpoints of a super-resolution network, built on BasicSR's SRModel."""

import json
import logging
import math
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from drct.archs import gpu_switches
from drct.archs.families import identity
from drct.archs.prepared_weights import forget_prepared_weights
from drct.archs.soundness import unsound
from drct.archs.traits import traits_of
from drct.errors import DRCTError
from drct.evaluation import validate  # not its names: importing BasicSR imports this module, perhaps amid that one
from drct.evaluation.metric_table import MetricTable
from drct.inference.runner import NetworkRunner
from drct.inference.weights import LoadedNetwork
from drct.models.changed_options import apply_options, kept_by, record, tell_changes
from drct.models.checkpoint_content import check_held, check_optimization, optimization_state, weights_content
from drct.models.explanations import REFUSALS, explained_loss, explained_network, explained_step
from drct.models.feature_weights import explained_download
from drct.models.optimizers import check_schedule, make_optimizer, make_schedule, update_learning_rates
from drct.runtime import checkpoint, distributed
from drct.runtime.device import device_for, resolve_num_gpu
from drct.runtime.recorded import RecordedTraining, check_recordable, in_precision
from drct.schema.options import Options, Tile, Train
from drct.version import __version__

SKIPPED_AT_MOST = 30  # steps in a row that are not finite; finding the scale of fp16 takes about 16


@MODEL_REGISTRY.register()
class DRCTModel(SRModel):
    """BasicSR's SRModel with any image size, tiles, metrics of each image and safe files; see docs/options.md."""

    def __init__(self, opt: dict[str, Any], loaded: LoadedNetwork | None = None) -> None:
        """Build the model of some options. A test may give the network, read from its weights of any kind."""
        self.loaded = loaded
        self.options = Options.model_validate(opt)  # with the defaults of what `opt` leaves out
        opt["num_gpu"] = resolve_num_gpu(opt["num_gpu"], get_root_logger())
        opt["path"].setdefault("param_key_g", self.options.path.param_key_g)
        if loaded is None:
            super().__init__(opt)  # builds the networks, and in training all that training needs
        else:
            BaseModel.__init__(self, opt)
            self._take(loaded)
        self.runner = self._make_runner()
        self.validator = validate.Validator(opt, self.device)  # without the model: DDP must not wait for a collection

    def _take(self, loaded: LoadedNetwork) -> None:
        """Take a network in place of one that is built by `network_g`."""
        self.net_g = self.model_to_device(loaded.network)
        self.print_network(self.net_g)
        get_root_logger().info(f"Loaded {loaded.entry or 'weights'} of {loaded.source}")
        key = self.options.path.param_key_g
        if key and key != loaded.entry and loaded.entry in ("params", "params_ema"):
            self.load_network(self.net_g, str(loaded.source), bool(self.options.path.strict_load_g), key)

    @property
    def train_options(self) -> Train:
        """Options of training, with the defaults of what the option file leaves out."""
        if self.options.train is None:
            raise DRCTError("the options have no section train")
        return self.options.train

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Put the network on the device that `num_gpu` asks for, and wrap it for several GPUs or processes."""
        self.device = device_for(self.opt["num_gpu"])
        net = net.to(self.device)
        if self.is_train and self.train_options.compile:
            net.compile()  # in place: names of parameters stay
        if self.opt["dist"] and self.is_train:
            gpus = [torch.cuda.current_device()] if self.device.type == "cuda" else None
            unused = self.options.find_unused_parameters
            return nn.parallel.DistributedDataParallel(net, device_ids=gpus, find_unused_parameters=unused)
        if self.opt["num_gpu"] > 1 and not self.opt["dist"]:
            return nn.DataParallel(net)
        return net

    def print_network(self, net: nn.Module) -> None:
        """Log the network's name and size; BasicSR also prints every layer."""
        net = self.get_bare_model(net)
        parameters = sum(p.numel() for p in net.parameters())
        get_root_logger().info(f"Network {type(net).__name__} with {parameters:,} parameters on {self.device}")

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """Load weights without running code. Raises `DRCTError` that names the differences if they do not fit.

        Training may start from weights of another scale, as published option files do with `strict_load_g: true`.
        """
        logger = get_root_logger()
        weights, used_key = checkpoint.read_weights(load_path, param_key)
        if used_key != param_key:
            logger.warning(f"{load_path} has no {param_key}: using {used_key or 'its bare state dict'}")
        net = self.get_bare_model(net)
        starts = self.is_train and not self.opt["path"].get("resume_state")
        if strict and starts and checkpoint.only_scale_differs(net, weights):
            logger.warning(f"{load_path} is of another scale: its upsampler is left out, although loading is strict")
            strict = False
        differences = checkpoint.load_weights(net, weights, strict, load_path)
        logger.info(f"Loaded {used_key or 'weights'} of {load_path}")
        for difference in differences:
            logger.warning(f"not loaded: {difference}")

    def _make_runner(self) -> NetworkRunner:
        """Build the runner of validation, with the EMA weights if there are any."""
        network = self.net_g_ema if hasattr(self, "net_g_ema") else self.get_bare_model(self.net_g)
        options = self.options
        error = options.tile_error
        tile: Any = options.tile
        if isinstance(options.tile, Tile):
            tile = options.tile.tile_size if error else (options.tile.tile_size, options.tile.tile_pad)
        traits = self.loaded.traits if self.loaded else traits_of(network, options.scale, self.opt["network_g"])
        return NetworkRunner(network, self.device, options.precision, tile, options.self_ensemble, traits, error)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: `lq` and perhaps `gt`, (B, C, H, W), RGB in [0, 1]."""
        if "lq" not in data:
            raise DRCTError(f"the dataset gives {', '.join(data)}, but no lq, which {type(self).__name__} upscales")
        self.__dict__.pop("gt", None)
        super().feed_data(data)

    def test(self) -> None:
        """Upscale `self.lq`, of any size, into `self.output`."""
        self.output = self.runner.run(self.lq)

    def upscale(self, lq: Tensor) -> Tensor:
        """Upscale images of any size: (B, C, H, W) -> (B, C, H * scale, W * scale), not clamped."""
        self.feed_data({"lq": lq})
        self.test()
        return self.output

    def validation(
        self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False, **callbacks: Any
    ) -> MetricTable | None:
        """Upscale and measure the dataset of a loader. See `Validator.run` for the arguments and the result."""
        table = self.validator.run(self.upscale, dataloader.dataset, current_iter, tb_logger, save_img, **callbacks)
        if self.is_train:
            forget_prepared_weights(self.runner.network)
        return table

    def nondist_validation(self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """Call `validation`, under the name that BasicSR uses in a single process."""
        self.validation(dataloader, current_iter, tb_logger, save_img)

    dist_validation = nondist_validation  # in several processes, which share the images

    def init_training_settings(self) -> None:
        """Build the losses, optimizer, schedule and EMA."""
        options = self.train_options
        if options.precision == "bf16" and isinstance(self.net_g, nn.DataParallel):
            # Its threads take autocast's default, fp16, which needs scaled losses
            raise DRCTError("train.precision: bf16 does not work with DataParallel: use torchrun, or set num_gpu: 1")
        self.recorded = self._recorded() if options.cuda_graphs else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        self.kept_options: dict[str, Any] = {}  # those of a training state that go on in place of the option file's
        self.skipped_in_a_row = self.applied = 0  # steps
        self.changing = False  # whether the weights are being changed, and must not be saved
        # With fp16 the first steps may be skipped until the scale is found
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        with explained_download(options):
            super().init_training_settings()
        if self.ema_decay > 0 and not self.options.path.strict_load_g:
            self.model_ema(0)  # parameters that are not in the file are random, and differ between both networks

    def _recorded(self) -> RecordedTraining | None:
        """Return what runs `net_g` in training as CUDA graphs, or None, with a warning, if the device has none."""
        options = self.train_options
        check_recordable(self.net_g, options.accumulation, options.compile)
        if gpu_switches.has_graphs(self.device):
            return RecordedTraining(self.net_g, options.precision)
        get_root_logger().warning(f"train.cuda_graphs has no effect on {self.device}: training without it")
        return None

    def get_optimizer(self, optim_type: str, params: Iterable[Tensor], lr: float, **kwargs: Any) -> Any:
        """Build an optimizer for parameters of `net_g` by its name: any of `torch.optim`, or MuonAdam."""
        return make_optimizer(optim_type, params, network=self.net_g, lr=lr, **kwargs)

    def setup_schedulers(self) -> None:
        """Build BasicSR's schedules, or any of `torch.optim.lr_scheduler`, by name."""
        options = dict(self.opt["train"]["scheduler"])
        kind, total = options.pop("type"), self.train_options.total_iter
        self.schedulers = [make_schedule(kind, optimizer, total, **options) for optimizer in self.optimizers]

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the learning rate of a step. Unlike BasicSR's, the warm-up is right for any schedule."""
        update_learning_rates(self.optimizers, self.schedulers, current_iter, warmup_iter)

    def optimize_parameters(self, current_iter: int) -> None:
        """Train one step on the batch of `feed_data`, in `accumulation` parts.

        If loss or gradient is not finite in any process, all processes skip the step with a warning. Raises `DRCTError`
        if `SKIPPED_AT_MOST` steps in a row were skipped, or the GPU's memory does not suffice.
        """
        try:
            self._compute_gradients(current_iter)
        except torch.cuda.OutOfMemoryError as error:
            raise DRCTError(
                "out of memory: set a smaller batch_size_per_gpu (train.accumulation makes up for it), network_g."
                "use_checkpoint: true or train.precision: bf16"
            ) from error
        trained = self.trained_networks(current_iter)
        for name, (network, optimizer) in trained.items():
            self.scaler.unscale_(optimizer)
            largest = self.train_options.grad_clip or math.inf
            self.grad_norms[name] = nn.utils.clip_grad_norm_(network.parameters(), largest)  # the same in all processes
        finite = all(bool(norm.isfinite()) for norm in self.grad_norms.values())
        self.changing = True
        if finite:
            for _, optimizer in trained.values():
                with explained_step(type(optimizer).__name__):
                    self.scaler.step(optimizer)
        self.scaler.update()
        if finite and self.ema_decay > 0:
            # In a short run the initial weights would keep a share of decay ** iterations in the average
            warm = (1 + current_iter) / (10 + current_iter) if self.train_options.ema_warmup else 1
            self.model_ema(decay=min(self.ema_decay, warm))
        self.changing = False
        self._count_skipped(finite, current_iter)

    def trained_networks(self, current_iter: int) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
        """Return the networks that an iteration trains and their optimizers, by the names of their gradients' norms."""
        return {"grad_norm": (self.net_g, self.optimizer_g)}

    def _compute_gradients(self, current_iter: int) -> None:
        if not hasattr(self, "gt"):
            raise DRCTError("the dataset datasets.train has no ground truth (gt) to train on: choose another type")
        for _, optimizer in self.trained_networks(current_iter).values():
            optimizer.zero_grad()
        self.losses: dict[str, Tensor] = {}
        self.grad_norms: dict[str, Tensor] = {}
        parts = self._parts(self.train_options.accumulation)
        for i, part in enumerate(parts):
            share = len(part["lq"]) / len(self.lq)
            self._add_gradients(part, share, last=i == len(parts) - 1, current_iter=current_iter)

    def _parts(self, count: int) -> list[dict[str, Tensor]]:
        """Divide the batch."""
        return [{"lq": lq, "gt": gt} for lq, gt in zip(self.lq.chunk(count), self.gt.chunk(count), strict=True)]

    def _add_gradients(self, part: dict[str, Tensor], share: float, last: bool, current_iter: int) -> None:
        """Add the gradients and losses of a part of the batch, weighted by its share."""
        with self._added_up(self.net_g, last):
            self._backward(self._losses(self._upscaled(self.net_g, part["lq"]), part["gt"]), share)

    def _added_up(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Let the processes add up the gradients of a network after the last part of the batch only."""
        if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
            return network.no_sync()
        return nullcontext()

    def _upscaled(self, network: nn.Module, lq: Tensor) -> Tensor:
        """Run net_g, wrapped or not, as CUDA graphs if that is wanted."""
        with explained_network(self.options.network_g.type, lq):
            return self._run(network, lq) if self.recorded is None else self.recorded(lq)

    def _run(self, network: nn.Module, images: Tensor) -> Tensor:
        """Run a network in the precision of training. Return its output as float32."""
        return in_precision(network, images, self.train_options.precision)

    def _backward(self, losses: dict[str, Tensor], share: float) -> None:
        """Compute the gradients of the sum of losses, weighted by the share of the batch."""
        total = torch.stack(list(losses.values())).sum() * share
        # An infinite loss can have finite gradients: make them show it, in every process
        sound = torch.where(total.detach().isfinite(), 1.0, math.nan)
        self.scaler.scale(total * sound).backward()
        self._record(losses, share)

    def _record(self, numbers: dict[str, Tensor], share: float) -> None:
        """Add numbers of a part of the batch to those of the log."""
        for name, number in numbers.items():
            self.losses[name] = self.losses.get(name, 0) + number.detach() * share

    def _losses(self, output: Tensor, gt: Tensor) -> dict[str, Tensor]:
        with explained_loss(self.opt["train"], output, gt):
            losses = {"l_pix": self.cri_pix(output, gt)} if self.cri_pix else {}
            if self.cri_perceptual:
                losses["l_percep"], losses["l_style"] = self.cri_perceptual(output, gt)
            losses = {name: loss for name, loss in losses.items() if loss is not None}
            if any(loss.dim() for loss in losses.values()):
                raise ValueError("a loss is not a single number: set its reduction to mean or sum")
        return losses

    def _count_skipped(self, finite: bool, current_iter: int) -> None:
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        self.applied += finite
        if finite:
            return
        losses = self._losses_in_words()
        if self.skipped_in_a_row >= SKIPPED_AT_MOST:
            raise DRCTError(
                f"training stopped at iteration {current_iter}: loss or gradient was not finite in "
                f"{SKIPPED_AT_MOST} steps in a row ({losses}). The weights before them are in the last checkpoint. "
                "Try a lower train.optim_g.lr, train.grad_clip, or precision bf16 or fp32, and look at the data"
            )
        # With fp16, finite losses whose gradients overflow are how the scale is found
        finding_scale = self.scaler.is_enabled() and all(math.isfinite(loss) for loss in self.losses.values())
        message = f"iteration {current_iter} changes nothing: loss ({losses}) or gradient is not finite"
        get_root_logger().log(logging.DEBUG if finding_scale else logging.WARNING, message)

    def check_outcome(self) -> None:
        """Raise `DRCTError` if steps were taken, but loss or gradient was finite in none: nothing was trained."""
        if self.skipped_in_a_row and not self.applied:
            raise DRCTError(
                f"nothing was trained: loss or gradient was not finite in any of {self.skipped_in_a_row} steps "
                f"({self._losses_in_words()}). Look at the data, or try a lower train.optim_g.lr, more steps or "
                "precision bf16 or fp32"
            )

    def _losses_in_words(self) -> str:
        return ", ".join(f"{name} {loss:.4g}" for name, loss in self.losses.items())

    def get_current_log(self) -> dict[str, float]:
        """Return the losses of the last step and the gradient's norm, averaged over the processes: call it in all."""
        numbers = self.losses | self.grad_norms
        return dict(zip(numbers, distributed.average(torch.stack(list(numbers.values()))).tolist(), strict=True))

    def save(self, epoch: int, current_iter: int, **progress: Any) -> None:
        """Write weights, then `<iter>.state`; iteration -1 writes `net_g_latest.pth` and no state."""
        self.save_weights("latest" if current_iter == -1 else current_iter)
        self.save_training_state(epoch, current_iter, **progress)

    def save_weights(self, label: int | str) -> None:
        """Write the weights of each network to `<models>/<network>_<label>.pth`, in the first process only.

        Raises `DRCTError`, in all processes, if some are not finite.
        """
        saved = self.saved_networks()
        for name, networks in saved.items():
            for key, network in networks.items():
                if problem := unsound(network.named_parameters()):
                    raise DRCTError(
                        f"training has ruined the weights, which are not saved: {problem} in {key} of {name}. Go on "
                        "from the last checkpoint with a lower learning rate, or with train.grad_clip"
                    )
        if distributed.rank() != 0:
            return
        for name, networks in saved.items():
            content: dict[str, Any] = dict(weights_content(networks))
            if name == "net_g":
                content["metadata"] = self._metadata()
            checkpoint.save(Path(self.opt["path"]["models"], f"{name}_{label}.pth"), content)

    def _metadata(self) -> dict[str, str]:
        """Name the network, so that its weights can be used without the option file."""
        network = self.get_bare_model(self.net_g)
        named = identity(network) or {"network_g": json.dumps(self.opt["network_g"], sort_keys=True)}
        return {"drct_version": __version__, **named, "scale": str(self.options.scale)}

    def saved_networks(self) -> dict[str, dict[str, nn.Module]]:
        """Return the networks by the names of their files and of the entries in them: `params`, `params_ema`."""
        networks = {"params": self.get_bare_model(self.net_g)}
        if self.ema_decay > 0:
            networks["params_ema"] = self.net_g_ema
        return {"net_g": networks}

    def save_training_state(self, epoch: int, current_iter: int, **progress: Any) -> None:
        """Write `<training_states>/<iter>.state`, in the first process only; nothing if `current_iter` is -1."""
        if distributed.rank() != 0 or current_iter == -1:
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "networks": list(self.saved_networks()),
            **optimization_state(self.optimizers, self.schedulers),
            "options": record(self.options, self.kept_options),
            "scaler": self.scaler.state_dict(),
            "best_metric_results": self.validator.best,
            **progress,
        }
        checkpoint.save(Path(self.opt["path"]["training_states"], f"{current_iter}.state"), state)

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Go on from a training state.

        Its optimizer and schedule keep their options, or get those of the option file, as `train.on_resume` says.
        Raises `DRCTError` if it is the state of another optimizer or schedule.
        """
        options, parts = self.train_options, (self.optimizers, self.schedulers)
        applies = options.on_resume == "apply"
        try:
            check_optimization(resume_state, self.optimizers, [] if applies else self.schedulers)
            tell_changes(resume_state, self.options, *parts)
            if applies:
                apply_options(resume_state, *parts, options.warmup_iter, resume_state["iter"])
            else:
                for optimizer, saved in zip(self.optimizers, resume_state["optimizers"], strict=True):
                    check_held(optimizer, saved["param_groups"], saved["state"])
                super().resume_training(resume_state)
            if resume_state.get("scaler"):
                self.scaler.load_state_dict(resume_state["scaler"])
        except REFUSALS as error:
            raise DRCTError(
                f"the training state does not fit the option file's optimizer, schedule or network: {error}. "
                "To start anew from its weights, use path.pretrain_network_g instead; train.on_resume: apply takes "
                "another schedule"
            ) from error
        if not applies:
            self._keep_options(resume_state)
        self.validator.best = resume_state.get("best_metric_results", {})

    def _keep_options(self, state: dict[str, Any]) -> None:
        """Let the optimizers and schedules go on as those of a training state, which they have loaded."""
        self.kept_options = kept_by(state, self.options)
        by_basicsr = "kinds" not in state  # which holds a lower rate during its warm-up
        if by_basicsr and state["iter"] < self.train_options.warmup_iter:
            for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                group.setdefault("scheduled_lr", group["initial_lr"])
        try:
            for schedule in self.schedulers:
                check_schedule(schedule, self.train_options.total_iter)
        except DRCTError as error:
            raise DRCTError(
                f"the schedule of the training state cannot go on: {error}. train.on_resume: apply takes the option "
                "file's schedule"
            ) from error
