"""RealDRCTMSEModel and RealDRCTGANModel: training on images that are degraded on the fly, as photographs are."""

from functools import cached_property
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.losses.loss_util import get_refined_artifact_map
from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY
from torch import Tensor, nn

from drct.data.degradation import Degradation, sharpen
from drct.errors import DRCTError
from drct.models.drct_model import DRCTModel
from drct.models.optimizers import make_optimizer
from drct.runtime.registry import registered_name
from drct.schema.options import TrainingOptions
from drct.seeding import generators_kept


@MODEL_REGISTRY.register()
class RealDRCTMSEModel(DRCTModel):
    """DRCTModel for the samples of RealESRGANDataset, which it degrades unless the loader has done so; or for pairs."""

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch of samples to degrade, or of pairs. If there is a sharpened ground truth, it becomes `gt`."""
        data = self.degraded(data)
        super().feed_data(data | {"gt": data["gt_usm"]} if "gt_usm" in data else data)

    @cached_property
    def degradation(self) -> Degradation:
        """The degradation of the option file."""
        return Degradation(TrainingOptions.model_validate(self.opt))

    def degraded(self, data: dict[str, Any]) -> dict[str, Any]:
        """Degrade each sample of a batch on the device of the network, if they are not yet pairs."""
        if "kernel1" not in data:
            return data
        tensors = {name: value.to(self.device) for name, value in data.items() if isinstance(value, Tensor)}
        with generators_kept(self.device):
            samples = ({name: value[i] for name, value in tensors.items()} for i in range(len(data["gt"])))
            pairs = [self.degradation.pair(sample) for sample in samples]
        return {name: torch.stack([pair[name] for pair in pairs]) for name in pairs[0]}


@MODEL_REGISTRY.register()
class RealDRCTGANModel(RealDRCTMSEModel):
    """RealDRCTMSEModel with a perceptual loss and a discriminator, as Real-ESRGAN is trained (arXiv:2107.10833).

    A step is BasicSR's RealESRGANModel's, but that it is skipped for both networks if a loss or gradient of either is
    not finite.
    """

    def init_training_settings(self) -> None:
        """Build the discriminator and its loss, then what DRCTModel builds."""
        for section, key in ((self.opt, "network_d"), (self.opt["train"], "gan_opt"), (self.opt["train"], "optim_d")):
            if not section.get(key):
                raise DRCTError(f"{type(self).__name__} needs {'' if key == 'network_d' else 'train.'}{key}")
        options, path = self.opt["network_d"], self.options.path
        network = build_network(options | {"type": registered_name(ARCH_REGISTRY, options["type"])})
        self.net_d = self.model_to_device(network)
        self.print_network(self.net_d)
        if path.pretrain_network_d:
            self.load_network(self.net_d, path.pretrain_network_d, path.strict_load_d, path.param_key_d)
        self.net_d.train()
        self.cri_gan = build_loss(self.opt["train"]["gan_opt"]).to(self.device)
        # What the discriminator gives an image that may be either: the middle of lsgan's targets, else a logit of 0
        self.undecided = 0.5 if self.opt["train"]["gan_opt"].get("gan_type") == "lsgan" else 0.0
        ldl_options = self.opt["train"].get("ldl_opt")
        if ldl_options and not self.train_options.ema_decay:
            raise DRCTError("train.ldl_opt compares with the moving average of the weights: set train.ema_decay")
        self.cri_ldl = build_loss(ldl_options).to(self.device) if ldl_options else None
        super().init_training_settings()

    def setup_optimizers(self) -> None:
        """Build the optimizers of both networks."""
        super().setup_optimizers()
        options = dict(self.opt["train"]["optim_d"])
        kind = options.pop("type")
        parameters = self.net_d.parameters()
        self.optimizer_d = make_optimizer(kind, parameters, "train.optim_d", self.net_d, **options)
        self.optimizers.append(self.optimizer_d)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch of samples to degrade, or of pairs, whose ground truth is sharpened where a loss needs it."""
        data = self.degraded(data)
        sharpened = data.get("gt_usm")
        super().feed_data({name: value for name, value in data.items() if name != "gt_usm"})
        if not self.is_train or "gt" not in data:
            return
        options = self.options
        if options.l1_gt_usm or options.percep_gt_usm or options.gan_gt_usm:
            self.gt_usm = sharpen(self.gt) if sharpened is None else sharpened.to(self.device)
        else:
            self.gt_usm = self.gt

    def trained_networks(self, current_iter: int) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
        """Return both networks, or the discriminator alone as `net_d_iters` and `net_d_init_iters` say."""
        options = self.train_options
        both = current_iter % options.net_d_iters == 0 and current_iter > options.net_d_init_iters
        generator = super().trained_networks(current_iter) if both else {}
        return generator | {"grad_norm_d": (self.net_d, self.optimizer_d)}

    def saved_networks(self) -> dict[str, dict[str, nn.Module]]:
        """Return both networks by the names of their files."""
        return super().saved_networks() | {"net_d": {"params": self.get_bare_model(self.net_d)}}

    def _parts(self, count: int) -> list[dict[str, Tensor]]:
        parts = super()._parts(count)
        return [part | {"gt_usm": gt_usm} for part, gt_usm in zip(parts, self.gt_usm.chunk(count), strict=True)]

    def _target(self, part: dict[str, Tensor], key: str) -> Tensor:
        return part["gt_usm"] if getattr(self.options, key) else part["gt"]

    def _add_gradients(self, part: dict[str, Tensor], share: float, last: bool, current_iter: int) -> None:
        if "grad_norm" in self.trained_networks(current_iter):
            self.net_d.requires_grad_(False)
            with self._added_up(self.net_g, last):
                output = self._upscaled(self.net_g, part["lq"])
                self._backward(self._generator_losses(output, part), share)
        else:
            with torch.no_grad():
                output = self._upscaled(self.get_bare_model(self.net_g), part["lq"])
        self.net_d.requires_grad_(True)
        images = {"real": self._target(part, "gan_gt_usm"), "fake": output.detach()}
        for name, batch in images.items():
            with self._added_up(self.net_d, last and name == "fake"):
                judgement = self._run(self.net_d, batch)
                self._backward({f"l_d_{name}": self.cri_gan(judgement, name == "real", is_disc=True)}, share)
            right = (judgement > self.undecided) == (name == "real")
            self._record({f"out_d_{name}": judgement.mean()}, share)
            self._record({"accuracy_d": right.float().mean()}, share / len(images))

    def _generator_losses(self, output: Tensor, part: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = {"l_g_pix": self.cri_pix(output, self._target(part, "l1_gt_usm"))} if self.cri_pix else {}
        if self.cri_perceptual:
            target = self._target(part, "percep_gt_usm")
            losses["l_g_percep"], losses["l_g_style"] = self.cri_perceptual(output, target)
        if self.cri_ldl:
            # As `net_g` is run: where both are the same, rounding should not decide which is nearer to the truth
            with torch.enable_grad():
                average = self._run(self.net_g_ema, part["lq"]).detach()
            artifacts = get_refined_artifact_map(part["gt"], output, average, 7)
            losses["l_g_ldl"] = self.cri_ldl(artifacts * output, artifacts * part["gt"])
        # Without DDP, which waits for gradients of the discriminator
        judgement = self._run(self.get_bare_model(self.net_d), output)
        losses["l_g_gan"] = self.cri_gan(judgement, True, is_disc=False)
        return {name: loss for name, loss in losses.items() if loss is not None}
