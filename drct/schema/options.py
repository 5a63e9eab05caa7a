"""The schema of option files: sections, keys, types, ranges, defaults and meanings, each written once.

The checks (`drct/runs/checks.py`), the defaults of runs, docs/options.md and options/schema.json follow from it. The
format is BasicSR's. Other keys are arguments of the classes that a file names (networks, losses, optimizers, ...).
"""

from inspect import signature
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from drct.archs.drct_arch import DRCT
from drct.archs.hat_arch import HAT
from drct.schema.degradation import BlurKeys, DegradationKeys
from drct.schema.fields import (
    EMPTY_IS_NONE,
    Arguments,
    Counts,
    Decay,
    Divisor,
    File,
    Folder,
    FolderName,
    ImageSize,
    LearningRate,
    Margin,
    MustBe,
    Name,
    NotNegative,
    Number,
    NumGPU,
    OrNull,
    PerChannel,
    Port,
    Positive,
    PositiveNumber,
    Precision,
    Rate,
    Ratio,
    Scale,
    Section,
    Seed,
    Size,
    Switch,
    Text,
    Whole,
    Wholes,
)
from drct.schema.fields import as_in as _as_in
from drct.schema.fields import described as _key
from drct.schema.fields import required as _required


def _argument(name: str, description: str, network: type = DRCT) -> Any:
    """Describe an argument of a network, which has the network's own default."""
    default = signature(network).parameters[name].default
    return _key(description, list(default) if isinstance(default, tuple) else default)


class Network(Arguments):
    """Network of any architecture in BasicSR's registry."""

    type: Text = _required("Name of the network's class: DRCT, DRCTPlain, HAT, or any that is registered with BasicSR.")
    upscale: Any = _key("Scale factor; must be equal to `scale`.")


class FrameNetwork(Network):
    """Arguments that DRCT and HAT share."""

    upscale: Scale = _argument("upscale", "Scale factor; must be equal to `scale`.")
    in_chans: Size = _argument("in_chans", "Number of channels of images.")
    img_size: ImageSize = _argument("img_size", "Side of the low-resolution patches in training, in pixels.")
    patch_size: ImageSize = _argument("patch_size", "Side of a token in pixels. The network embeds single pixels.")
    embed_dim: Size = _argument("embed_dim", "Channels of the body, a multiple of every entry of `num_heads`.")
    depths: Wholes = _argument("depths", "One entry per dense group; the entries spread the stochastic depth rates.")
    num_heads: Wholes = _argument("num_heads", "Attention heads of each group, as many entries as `depths`.")
    window_size: Size = _argument("window_size", "Side of an attention window in pixels.")
    mlp_ratio: Ratio = _argument("mlp_ratio", "Hidden channels of the MLPs, as a multiple of their width.")
    qkv_bias: Switch = _argument("qkv_bias", "Whether queries, keys and values have an additive bias.")
    qk_scale: Number | None = _argument("qk_scale", "Factor of the attention logits; head_dim ** -0.5 if not given.")
    drop_rate: Rate = _argument("drop_rate", "Dropout rate of features.")
    attn_drop_rate: Rate = _argument("attn_drop_rate", "Dropout rate of attention weights.")
    drop_path_rate: Rate = _argument(
        "drop_path_rate", "Stochastic depth rate of the last block, rising linearly from 0."
    )
    ape: Switch = _argument("ape", "Whether to add a learned absolute position embedding.")
    patch_norm: Switch = _argument("patch_norm", "Whether to normalize the shallow features before the body.")
    use_checkpoint: Switch = _argument("use_checkpoint", "Recompute activations in training: less memory, more time.")
    img_range: PositiveNumber = _argument("img_range", "Factor of pixel values within the network.")
    upsampler: Literal["pixelshuffle", ""] = _argument(
        "upsampler", "Reconstruction head; '' for none, which cannot run."
    )
    resi_connection: Literal["1conv", "identity"] = _argument(
        "resi_connection", "Layer before the long skip connection: a 3x3 convolution or none. HAT: of groups too."
    )

    def weights(self) -> float:
        """Return the number of weights, roughly: those of the blocks, and the indices and biases of their windows."""
        raise NotImplementedError

    def _window(self) -> int:
        """Return the side of a window of the network, which images of img_size limit."""
        return min(self.window_size, self.img_size if isinstance(self.img_size, int) else min(self.img_size))


class DRCTNetwork(FrameNetwork):
    """Arguments of DRCT. Those of HAT that the original's option files carry along are accepted and ignored."""

    type: Literal["DRCT", "DRCTPlain"] = _required(
        "Name of the network's class. Other classes registered with BasicSR have their own arguments."
    )
    gc: Size = _argument("gc", "Growth: channels that each block adds within a group.")

    def weights(self) -> float:
        """See `FrameNetwork.weights`."""
        window = self._window()
        widths = [self.embed_dim + k * self.gc for k in range(5)]
        block = sum((4 + 2 * self.mlp_ratio) * width**2 for width in widths)
        return len(self.num_heads) * (block + 5 * (2 * window - 1) ** 2 * max(self.num_heads) + 5 * 2 * window**4)


class HATNetwork(FrameNetwork):
    """Arguments of HAT that DRCT does not have. It takes those of DRCT, too, but for `gc`."""

    type: Literal["HAT"] = _required("Name of the network's class.")
    depths: Counts = _argument("depths", "Hybrid blocks of each group.", HAT)
    compress_ratio: Divisor = _argument(
        "compress_ratio", "The convolutions of a hybrid block have embed_dim / compress_ratio hidden channels.", HAT
    )
    squeeze_factor: Divisor = _argument(
        "squeeze_factor", "Channel attention has embed_dim / squeeze_factor hidden channels.", HAT
    )
    conv_scale: Number = _argument("conv_scale", "Factor of what the convolutions of a hybrid block add.", HAT)
    overlap_ratio: Annotated[Number, Field(ge=0, le=16), MustBe("0 or a number above")] = _argument(
        "overlap_ratio", "Windows of keys in overlapping attention are larger by this share of window_size.", HAT
    )

    def weights(self) -> float:
        """See `FrameNetwork.weights`."""
        dim, window, heads = self.embed_dim, self._window(), max(self.num_heads)
        keys = window * (1 + self.overlap_ratio)
        swin = (4 + 2 * self.mlp_ratio) * dim**2
        hybrid = swin + (18 / self.compress_ratio + 2 / self.squeeze_factor) * dim**2 + (2 * window) ** 2 * heads
        overlapping = swin + 9 * dim**2 + (window + keys) ** 2 * heads
        indices = 2 * window**2 * (window**2 + keys**2)
        return sum(self.depths) * hybrid + len(self.depths) * overlapping + indices


NETWORKS: dict[str, type[FrameNetwork]] = {"DRCT": DRCTNetwork, "DRCTPlain": DRCTNetwork, "HAT": HATNetwork}  # by type


def _network_kind(network: Any) -> str:
    kind = network.get("type") if isinstance(network, dict) else getattr(network, "type", None)  # read or dumped
    return NETWORKS[kind].__name__ if isinstance(kind, str) and kind in NETWORKS else "other"


AnyNetwork = Annotated[
    Annotated[DRCTNetwork, Tag("DRCTNetwork")]
    | Annotated[HATNetwork, Tag("HATNetwork")]
    | Annotated[Network, Tag("other")],
    pydantic.Discriminator(_network_kind),
]


class Discriminator(Arguments):
    """Discriminator and its arguments."""

    type: Text = _required("UNetDiscriminatorSN, or any network that is registered with BasicSR.")


class IOBackend(Section):
    """Storage of a dataset's images."""

    must_be: ClassVar[str] = "a section with type: disk or type: lmdb"
    type: Annotated[Literal["disk", "lmdb"], MustBe("disk or lmdb")] = _required(
        "disk for folders of image files, lmdb for LMDB databases."
    )


class AnyDataset(Section):
    """Keys of every dataset."""

    name: Name = _required("Name in logs, tables and folders of results.")
    type: Text = _required(
        "PairedImageDataset (ground truth and low-resolution images), SingleImageDataset (low-resolution "
        "images only), ReducedImageDataset (ground truth only, reduced in tests as by `drct prepare`), "
        "ImageNetPairedDataset (ground truth only, reduced on the fly), RealESRGANDataset (ground truth only, degraded "
        "on the fly), or any registered with BasicSR."
    )
    io_backend: IOBackend = _required("How images are stored.")
    dataroot_gt: Folder | None = _key("Folder, or LMDB, of the ground truth.")
    dataroot_lq: Folder | None = _key("Folder, or LMDB, of the low-resolution images.")
    meta_info_file: Annotated[str, Field(strict=True), MustBe("the path of a text file")] | None = _key(
        "List of the files to use, one `name (h,w,c)` per line; all files of the folder if not given."
    )
    meta_info: File | None = _key("BasicSR's name of that list for RealESRGANDataset and RealESRGANPairedDataset.")
    exclude: File | None = _key(
        "Text file of images to leave out, one name per line, relative to the folder: what `drct prepare check` writes."
    )
    filename_tmpl: OrNull[Text] = _key("Name of a low-resolution file, where {} is the name of its ground truth.", "{}")
    color: Text | None = _key("y to read the Y channel of YCbCr only.")
    mean: PerChannel | None = _key("Mean to subtract from images in [0, 1].")
    std: PerChannel | None = _key("Standard deviation to divide images by.")
    gt_size: Size | None = _key("Side of the ground-truth patches in pixels, a multiple of `scale`.")
    use_hflip: Switch | None = _key("Whether to flip patches at random, left to right.")
    use_rot: Switch | None = _key("Whether to rotate patches at random, by multiples of 90 degrees.")
    batch_size_per_gpu: Size | None = _key("Patches per GPU (or process) and batch; see `train.accumulation`.")
    num_worker_per_gpu: NotNegative | None = _key("Processes per GPU that read images; 0 for the training process.")
    dataset_enlarge_ratio: OrNull[Ratio] = _key("Number of samples that an epoch takes of each image.", 1)
    cache: OrNull[Switch] = _key("Whether each worker keeps its decoded images in memory, 3 bytes per pixel.", False)
    use_shuffle: Switch | None = _key("Used by BasicSR's own train.py only; here samples are always shuffled.")
    prefetch_mode: Text | None = _key("Used by BasicSR's own train.py only: cpu or cuda.")
    num_prefetch_queue: Positive | None = _key("Used by BasicSR's own train.py only.")
    pin_memory: Switch | None = _key("Used by BasicSR's own train.py only.")
    persistent_workers: Switch | None = _key("Used by BasicSR's own train.py only.")


class Dataset(BlurKeys, AnyDataset):
    """Images to train, validate or test on."""


class TrainingDataset(Dataset):
    """Images to train on."""

    gt_size: Size = _as_in(Dataset, "gt_size")
    use_hflip: Switch = _as_in(Dataset, "use_hflip")
    use_rot: Switch = _as_in(Dataset, "use_rot")
    batch_size_per_gpu: Size = _as_in(Dataset, "batch_size_per_gpu")
    num_worker_per_gpu: NotNegative = _as_in(Dataset, "num_worker_per_gpu")


class Datasets(Section):
    """Datasets by name: train, val, val_1, val_2, ..., test, test_1, ..."""

    __pydantic_extra__: dict[str, Dataset]
    train: TrainingDataset | None = _key("Training images.")
    val: Dataset | None = _key("Validation images; val_1, val_2, ... for several sets.")
    test: Dataset | None = _key("Test images; test_1, test_2, ... for several sets.")

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if str(name).split("_")[0] not in ("train", "val", "test"):
                words = "has {name}, but a dataset is called train, val, val_1, test_1 and so on"
                raise PydanticCustomError("problem", words, {"name": repr(name)})
        return value

    def all(self) -> list[tuple[str, Dataset]]:
        """Return the datasets that are given, with their names in the option file."""
        return [(name, dataset) for name, dataset in self if isinstance(dataset, Dataset)]


class TrainingDatasets(Datasets):
    """Datasets of a training run."""

    train: TrainingDataset = _as_in(Datasets, "train")


class Tile(Section):
    """Size of the tiles in which images are upscaled."""

    must_be: ClassVar[str] = "a section of keys or auto"
    tile_size: Size = _required("Side of a tile in input pixels, rounded up to whole windows.")
    tile_pad: Margin = _key("Margin around a tile that is computed and cut off, in input pixels.", 0)


class Paths(Section):
    """Weights and states to begin with."""

    pretrain_network_g: File | None = _key("Weight file to begin with; random weights if none.")
    param_key_g: Annotated[Literal["params", "params_ema"], MustBe("params or params_ema")] | None = _key(
        "Which weights of that file to load: params_ema are their moving average.", "params_ema"
    )
    strict_load_g: OrNull[Switch] = _key(
        "Whether all weights of the file must fit the network; in training, all but the upsampler's where the file is "
        "of another scale.",
        True,
    )
    pretrain_network_d: File | None = _key("Weight file of the discriminator to begin with; random weights if none.")
    param_key_d: Annotated[Literal["params", "params_ema"], MustBe("params or params_ema")] | None = _key(
        "Which weights of that file to load.", "params"
    )
    strict_load_d: OrNull[Switch] = _key("Whether all weights of that file must fit the discriminator.", True)
    resume_state: File | None = _key("Training state to go on from, experiments/.../N.state.")
    ignore_resume_networks: Any = _key("Used by BasicSR's own train.py only.")


class Optimizer(Arguments):
    """Optimizer of `torch.optim`, or MuonAdam, and its arguments."""

    type: Text = _required(
        "MuonAdam (see docs/train.md), or any optimizer of torch.optim whose step takes no arguments, such as Adam."
    )
    lr: LearningRate = _required("Learning rate.")


class Scheduler(Arguments):
    """Learning rate schedule and its arguments."""

    type: Text = _required(
        "MultiStepLR, MultiStepRestartLR, CosineAnnealingRestartLR or any of torch.optim.lr_scheduler "
        "whose step takes no arguments."
    )
    milestones: Annotated[list[NotNegative], MustBe("a list of iterations")] = _key(
        "Iterations after which the learning rate is multiplied by `gamma`.", []
    )
    gamma: Number = _key("Factor of the learning rate at milestones.", 0.1)
    total_steps: Positive | None = _key("Length of a one-cycle schedule, at least `total_iter`.")


class Loss(Arguments):
    """Loss registered with BasicSR and its arguments."""

    type: Text = _required("L1Loss, MSELoss, CharbonnierLoss, or any registered with BasicSR.")
    loss_weight: Number = _key("Weight of the loss in the sum.", 1.0)
    reduction: Text = _key("mean, sum or none.", "mean")


class PerceptualLoss(Arguments):
    """Perceptual loss registered with BasicSR and its arguments."""

    type: Text = _required("PerceptualLoss, or any registered with BasicSR that returns two losses.")


class Train(Section):
    """Training."""

    total_iter: Positive = _required("Number of iterations.")
    warmup_iter: OrNull[Whole] = _key("Iterations of linear warm-up of the learning rate; -1 for none.", -1)
    precision: Precision = _key("Number format of the forward and backward passes; fp16 scales the loss.", "fp32")
    accumulation: OrNull[Size] = _key("Number of batches whose gradients a step adds up, one after the other.", 1)
    grad_clip: PositiveNumber | None = _key("Largest norm of the gradient; no clipping if none.")
    ema_decay: Decay = _key("Decay of the moving average of the weights, params_ema; 0 for no average.", 0.0)
    ema_warmup: OrNull[Switch] = _key(
        "Whether to begin with a smaller decay, so that a short run forgets the initial weights.", False
    )
    on_resume: Annotated[Literal["keep", "apply"], MustBe("keep or apply")] = _key(
        "What a resumed run does with changes of `optim_g` and `scheduler`: keep those of the training state, or apply "
        "the option file's to its iteration. All other changes always apply.",
        "keep",
    )
    compile: OrNull[Switch] = _key("Whether to compile the network by torch.compile.", False)
    cuda_graphs: OrNull[Switch] = _key(
        "Whether to replay forward and backward pass as recorded CUDA graphs, which is faster where a GPU waits for "
        "Python. In a single process, without `accumulation` or `compile`; has no effect on other devices.",
        False,
    )
    optim_g: Optimizer = _required("Optimizer.")
    scheduler: Scheduler = _required("Learning rate schedule.")
    pixel_opt: Annotated[Loss | None, EMPTY_IS_NONE] = _key("Loss between pixels.")
    perceptual_opt: Annotated[PerceptualLoss | None, EMPTY_IS_NONE] = _key(
        "Loss between features. At least one of the two losses is needed."
    )
    gan_opt: Arguments | None = _key("GANLoss of BasicSR, of the discriminator and of the network that deceives it.")
    ldl_opt: Arguments | None = _key("Loss of RealDRCTGANModel against artifacts, as BasicSR defines it: L1Loss.")
    optim_d: Arguments | None = _key("Optimizer of the discriminator, with the keys of `optim_g`.")
    net_d_iters: OrNull[Positive] = _key("The network is trained in iterations that this divides.", 1)
    net_d_init_iters: OrNull[NotNegative] = _key("Iterations at the start that train the discriminator only.", 0)


class Metric(Section):
    """Metric and its arguments."""

    must_be: ClassVar[str] = "a section with a type"
    type: Text = _required(
        "calculate_psnr, calculate_ssim, calculate_niqe, the name of a metric of pyiqa such as lpips, or "
        "any registered with BasicSR."
    )
    crop_border: NotNegative | None = _key(
        "Pixels to leave out at each border, usually `scale`; psnr, ssim and niqe need it."
    )
    test_y_channel: OrNull[Switch] = _key("Whether to measure the Y channel of YCbCr in place of RGB.", False)
    input_order: Text = _key("Order of the image's dimensions, HWC or CHW.", "HWC")
    better: Annotated[Literal["higher", "lower"], MustBe("higher or lower")] | None = _key(
        "Whether higher or lower values are better; higher if not given, or as pyiqa says."
    )


class Val(Section):
    """Test, or validation during training."""

    val_freq: Positive | None = _key("Iterations from one validation to the next.")
    save_img: OrNull[Switch] = _key("Whether to save upscaled images.", True)
    suffix: Annotated[str | int | float, MustBe("text")] | None = _key(
        "Suffix of the names of saved images; the name of the run if none."
    )
    metrics: Annotated[dict[str, Metric] | None, EMPTY_IS_NONE] = _key(
        "Metrics by name, of any choice; none if not given."
    )
    bicubic: OrNull[Switch] = _key("Whether to measure bicubic upscaling too.", False)
    comparison: OrNull[Switch] = _key("Whether a test draws details beside bicubic and ground truth.", False)
    report: OrNull[Switch] = _key("Whether a test writes report.html.", True)
    protocols: OrNull[Switch] = _key(
        "Whether a test also measures PSNR by the protocols of other papers, which takes two to three times as long.",
        False,
    )
    pbar: Switch | None = _key("Used by BasicSR's own scripts only; here there is always a progress bar.")


class TrainingVal(Val):
    """Validation during training."""

    val_freq: Positive = _as_in(Val, "val_freq")
    save_img: OrNull[Switch] = _as_in(Val, "save_img", False)
    report: OrNull[Switch] = _as_in(Val, "report", False)
    protocols: OrNull[Annotated[Literal[False], MustBe("true or false in a test, and false in training")]] = _as_in(
        Val, "protocols", False
    )


class Wandb(Section):
    """Weights & Biases."""

    must_be: ClassVar[str] = "a section with a project"
    project: Text | None = _key("Project to log to; needs `use_tb_logger: true`.")
    resume_id: Text | None = _key("Identifier of the run to go on with.")


class Logger(Section):
    """Logs and checkpoints of a training run."""

    print_freq: Positive = _required("Iterations from one line of the log to the next.")
    save_checkpoint_freq: Positive = _required("Iterations from one checkpoint to the next.")
    keep_last: Positive | None = _key("Number of newest checkpoints to keep; all if not given.")
    save_best: Text | None = _key("Name of the metric whose best weights are saved as net_g_best.pth.")
    use_tb_logger: OrNull[Switch] = _key("Whether to log to TensorBoard too.", False)
    wandb: Annotated[Wandb | None, EMPTY_IS_NONE] = _key("Logging to Weights & Biases.")


class DistParams(Section):
    """Communication of several processes."""

    backend: Text = _key("nccl for GPUs, gloo for the CPU.", "nccl")
    port: Port | None = _key("Port of the first machine if the launcher chooses none; 29500 if not given.")


class GeneralOptions(Section):
    """Options that do not concern degradation."""

    name: FolderName = _required("Name of the run and of its folder in experiments/ or results/.")
    model_type: Text = _required(
        "DRCTModel, RealDRCTMSEModel, RealDRCTGANModel, one of these with HAT for DRCT (which is the same), or any "
        "model registered with BasicSR."
    )
    # Tests need neither scale nor network_g in their option file: `runs.options.read_options` fills them in
    scale: Scale = _key("Scale factor; a test without `network_g` has that of the weights.")
    num_gpu: NumGPU = _required("Number of GPUs, auto for all, 0 for the CPU.")
    manual_seed: Seed | None = _key("Seed of all random numbers; a random one if none.")
    precision: Precision = _key("Number format of inference.", "fp32")
    self_ensemble: OrNull[Switch] = _key("Whether to average the results of the 8 rotations and reflections.", False)
    find_unused_parameters: OrNull[Switch] = _key(
        "Passed to DistributedDataParallel, for networks that do not use all their parameters.", False
    )
    tile: Tile | Literal["auto"] | None = _key(
        "Tiles for limited memory; auto takes tiles only where the free memory does not suffice."
    )
    tile_error: PositiveNumber | None = _key(
        "Chooses the overlap of tiles in place of `tile_pad`: the smallest with which results differ from those of "
        "whole images by no more than this root mean square, in levels of 255."
    )
    datasets: Datasets = _required("Images to train, validate or test on, by name.")
    network_g: AnyNetwork = _key("Network and its arguments; a test reads them from `path.pretrain_network_g`.")
    network_d: Discriminator | None = _key("Discriminator of RealDRCTGANModel.")
    path: Paths = _required("Files of weights and states to begin with.")
    train: Train | None = _key("Training.")
    val: OrNull[Val] = Field(default_factory=Val, description="Test, or validation during training.")
    logger: Logger | None = _key("Logs and checkpoints of a training run.")
    dist_params: OrNull[DistParams] = Field(
        default_factory=DistParams, description="Communication of several processes."
    )


class Options(DegradationKeys, GeneralOptions):
    """Options of a test run; those of training are checked where they are given."""

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics by name."""
        return self.val.metrics or {} if self.val else {}


class TrainingOptions(Options):
    """Options of a training run."""

    scale: Scale = _as_in(Options, "scale")
    tile_error: Annotated[None, MustBe("a number above 0 in a test, and left out in training")] = _as_in(
        Options, "tile_error", None
    )
    network_g: AnyNetwork = _as_in(Options, "network_g")
    datasets: TrainingDatasets = _as_in(Options, "datasets")
    train: Train = _as_in(Options, "train")
    val: TrainingVal | None = _as_in(Options, "val", None)  # type: ignore[assignment]
    logger: Logger = _as_in(Options, "logger")


def known_keys(section: type[Section] = Section) -> set[str]:
    """Return the keys of a kind of section, by default of all sections."""
    return set(section.model_fields).union(*map(known_keys, section.__subclasses__()))
