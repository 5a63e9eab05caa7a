"""The schema of option files: sections, keys, types, ranges, defaults and meanings, each written once.

From it follow the checks (`drct/runs/checks.py`), the defaults that runs use, the table in docs/options.md and the
JSON schema for editors. The format is BasicSR's. Keys that are not listed here are arguments of the classes that a file
names (networks, datasets, losses, optimizers, ...) and pass unchecked.
"""

from inspect import signature
from typing import Annotated, Any, ClassVar, Literal

from pydantic import VERSION, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError

from drct.archs.drct_arch import DRCT
from drct.runs.option_types import (
    EMPTY_IS_NONE,
    Decay,
    File,
    Folder,
    FolderName,
    ImageSize,
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
    Switch,
    Text,
    Whole,
    Wholes,
)


class Section(BaseModel):
    """Section of an option file. Unknown keys are kept; a warning names those that resemble known ones."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())
    must_be: ClassVar[str] = "a section of keys"

    @model_validator(mode="before")
    @classmethod
    def _check_section(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise PydanticCustomError("must_be", cls.must_be)
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {key: entry for key, entry in value.items() if entry is not None or key not in required}


class Arguments(Section):
    """Name of a class and its arguments, which the class checks itself."""

    must_be: ClassVar[str] = "a section with a type"
    type: Text = Field(description="Name of the class.")


def _as_in(section: type[Section], key: str, default: Any = ...) -> Any:
    """Describe a key as another section does, but make it required or change its default."""
    return Field(default, description=section.model_fields[key].description)


# ------------------------------------------------------------------------------------------------------------ network


def _argument(name: str, description: str) -> Any:
    """Describe an argument of DRCT, which has DRCT's own default."""
    default = signature(DRCT).parameters[name].default
    return Field(list(default) if isinstance(default, tuple) else default, description=description)


class Network(Arguments):
    """Network of any architecture in BasicSR's registry."""

    type: Text = Field(
        description="Name of the network's class: DRCT, DRCTPlain, or any that is registered with BasicSR.",
        json_schema_extra={"not": {"enum": ["DRCT", "DRCTPlain"]}},
    )
    upscale: Any = Field(None, description="Scale factor; must be equal to `scale`.")


class DRCTNetwork(Network):
    """Arguments of DRCT. Those of HAT that the original's option files carry along are accepted and ignored."""

    type: Literal["DRCT", "DRCTPlain"] = Field(
        description="Name of the network's class. Other classes registered with BasicSR have their own arguments."
    )
    upscale: Positive = _argument("upscale", "Scale factor; must be equal to `scale`.")
    in_chans: Positive = _argument("in_chans", "Number of channels of images.")
    img_size: ImageSize = _argument("img_size", "Side of the low-resolution patches in training, in pixels.")
    patch_size: ImageSize = _argument("patch_size", "Side of a token in pixels. The network embeds single pixels.")
    embed_dim: Positive = _argument("embed_dim", "Channels of the body, a multiple of every entry of `num_heads`.")
    depths: Wholes = _argument("depths", "One entry per dense group; the entries spread the stochastic depth rates.")
    num_heads: Wholes = _argument("num_heads", "Attention heads of each group, as many entries as `depths`.")
    window_size: Positive = _argument("window_size", "Side of an attention window in pixels.")
    gc: Positive = _argument("gc", "Growth: channels that each block adds within a group.")
    mlp_ratio: PositiveNumber = _argument("mlp_ratio", "Hidden channels of the MLPs, as a multiple of their width.")
    qkv_bias: Switch = _argument("qkv_bias", "Whether queries, keys and values have an additive bias.")
    qk_scale: Number | None = _argument("qk_scale", "Factor of the attention logits; head_dim ** -0.5 if not given.")
    drop_rate: Rate = _argument("drop_rate", "Dropout rate of features.")
    attn_drop_rate: Rate = _argument("attn_drop_rate", "Dropout rate of attention weights.")
    drop_path_rate: Rate = _argument(
        "drop_path_rate", "Stochastic depth rate of the last block; rates rise linearly from 0."
    )
    ape: Switch = _argument("ape", "Whether to add a learned absolute position embedding.")
    patch_norm: Switch = _argument("patch_norm", "Whether to normalize the shallow features before the body.")
    use_checkpoint: Switch = _argument(
        "use_checkpoint", "Recompute activations in the backward pass: less memory, more time."
    )
    img_range: PositiveNumber = _argument("img_range", "Factor of pixel values within the network.")
    upsampler: Literal["pixelshuffle", ""] = _argument(
        "upsampler", "Reconstruction head; '' for a network without one, which cannot run."
    )
    resi_connection: Literal["1conv", "identity"] = _argument(
        "resi_connection", "Layer before the long skip connection: a 3x3 convolution or none."
    )


def _network_kind(network: Any) -> str:
    drct = isinstance(network, dict) and network.get("type") in ("DRCT", "DRCTPlain")
    return "DRCT" if drct else "other"


AnyNetwork = Annotated[
    Annotated[DRCTNetwork, Tag("DRCT")] | Annotated[Network, Tag("other")], Discriminator(_network_kind)
]


# ----------------------------------------------------------------------------------------------------------- datasets


class IOBackend(Section):
    """Storage of a dataset's images."""

    must_be: ClassVar[str] = "a section with type: disk or type: lmdb"
    type: Annotated[Literal["disk", "lmdb"], MustBe("disk or lmdb")] = Field(
        description="disk for folders of image files, lmdb for LMDB databases."
    )


class Dataset(Section):
    """Images to train, validate or test on."""

    name: Name = Field(description="Name in logs, tables and folders of results.")
    type: Text = Field(
        description="PairedImageDataset (ground truth and low-resolution images), SingleImageDataset (low-resolution "
        "images only), ImageNetPairedDataset (ground truth only, reduced on the fly), or any registered with BasicSR."
    )
    io_backend: IOBackend = Field(description="How images are stored.")
    dataroot_gt: Folder | None = Field(None, description="Folder, or LMDB, of the ground truth.")
    dataroot_lq: Folder | None = Field(None, description="Folder, or LMDB, of the low-resolution images.")
    meta_info_file: Annotated[str, Field(strict=True), MustBe("the path of a text file")] | None = Field(
        None, description="List of the files to use, one `name (h,w,c)` per line; all files of the folder if not given."
    )
    filename_tmpl: OrNull[Text] = Field(
        "{}", description="Name of a low-resolution file, where {} is the name of its ground truth."
    )
    color: Text | None = Field(None, description="y to read the Y channel of YCbCr only.")
    mean: PerChannel | None = Field(None, description="Mean to subtract from images in [0, 1].")
    std: PerChannel | None = Field(None, description="Standard deviation to divide images by.")
    gt_size: Positive | None = Field(
        None, description="Side of the ground-truth patches in pixels, a multiple of `scale`."
    )
    use_hflip: Switch | None = Field(None, description="Whether to flip patches at random, left to right.")
    use_rot: Switch | None = Field(None, description="Whether to rotate patches at random, by multiples of 90 degrees.")
    batch_size_per_gpu: Positive | None = Field(
        None, description="Number of patches per GPU (or process) and step, times `train.accumulation`."
    )
    num_worker_per_gpu: NotNegative | None = Field(
        None, description="Number of processes per GPU that read images; 0 to read in the training process."
    )
    dataset_enlarge_ratio: OrNull[PositiveNumber] = Field(
        1, description="Number of samples that an epoch takes of each image."
    )
    cache: OrNull[Switch] = Field(
        False, description="Whether each worker keeps its decoded images in memory, 3 bytes per pixel."
    )
    use_shuffle: Switch | None = Field(
        None, description="Used by BasicSR's own train.py only; here samples are always shuffled."
    )
    prefetch_mode: Text | None = Field(None, description="Used by BasicSR's own train.py only: cpu or cuda.")
    num_prefetch_queue: Positive | None = Field(None, description="Used by BasicSR's own train.py only.")
    pin_memory: Switch | None = Field(None, description="Used by BasicSR's own train.py only.")
    persistent_workers: Switch | None = Field(None, description="Used by BasicSR's own train.py only.")


class TrainingDataset(Dataset):
    """Images to train on."""

    gt_size: Positive = _as_in(Dataset, "gt_size")
    use_hflip: Switch = _as_in(Dataset, "use_hflip")
    use_rot: Switch = _as_in(Dataset, "use_rot")
    batch_size_per_gpu: Positive = _as_in(Dataset, "batch_size_per_gpu")
    num_worker_per_gpu: NotNegative = _as_in(Dataset, "num_worker_per_gpu")


class Datasets(Section):
    """Datasets by name: train, val, val_1, val_2, ..., test, test_1, ..."""

    __pydantic_extra__: dict[str, Dataset]
    train: TrainingDataset | None = Field(None, description="Training images.")
    val: Dataset | None = Field(None, description="Validation images; val_1, val_2, ... for several sets.")
    test: Dataset | None = Field(None, description="Test images; test_1, test_2, ... for several sets.")

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


# ----------------------------------------------------------------------------------------------------- other sections


class Tile(Section):
    """Size of the tiles in which images are upscaled."""

    must_be: ClassVar[str] = "a section of keys or auto"
    tile_size: Positive = Field(description="Side of a tile in input pixels, rounded up to whole windows.")
    tile_pad: NotNegative = Field(0, description="Margin around a tile that is computed and cut off, in input pixels.")


class Paths(Section):
    """Weights and states to begin with."""

    pretrain_network_g: File | None = Field(None, description="Weight file to begin with; random weights if none.")
    param_key_g: Annotated[Literal["params", "params_ema"], MustBe("params or params_ema")] | None = Field(
        "params_ema", description="Which weights of that file to load: params_ema are their moving average."
    )
    strict_load_g: OrNull[Switch] = Field(True, description="Whether all weights of the file must fit the network.")
    resume_state: File | None = Field(None, description="Training state to go on from, experiments/.../N.state.")
    ignore_resume_networks: Any = Field(None, description="Used by BasicSR's own train.py only.")


class Optimizer(Arguments):
    """Optimizer of `torch.optim` and its arguments."""

    type: Text = Field(description="Any optimizer of torch.optim whose step takes no arguments, such as Adam.")
    lr: Annotated[float, Field(strict=True), MustBe("a number, the learning rate")] = Field(
        description="Learning rate."
    )


class Scheduler(Arguments):
    """Learning rate schedule and its arguments."""

    type: Text = Field(
        description="MultiStepLR, MultiStepRestartLR, CosineAnnealingRestartLR or any of torch.optim.lr_scheduler "
        "whose step takes no arguments."
    )
    milestones: Annotated[list[NotNegative], MustBe("a list of iterations")] = Field(
        [], description="Iterations after which the learning rate is multiplied by `gamma`."
    )
    gamma: Number = Field(0.1, description="Factor of the learning rate at milestones.")
    total_steps: Positive | None = Field(None, description="Length of a one-cycle schedule, at least `total_iter`.")


class Loss(Arguments):
    """Loss registered with BasicSR and its arguments."""

    type: Text = Field(description="L1Loss, MSELoss, CharbonnierLoss, or any registered with BasicSR.")
    loss_weight: Number = Field(1.0, description="Weight of the loss in the sum.")
    reduction: Text = Field("mean", description="mean, sum or none.")


class PerceptualLoss(Arguments):
    """Perceptual loss registered with BasicSR and its arguments."""

    type: Text = Field(description="PerceptualLoss, or any registered with BasicSR that returns two losses.")


class Train(Section):
    """Training."""

    total_iter: Positive = Field(description="Number of iterations.")
    warmup_iter: OrNull[Whole] = Field(
        -1, description="Iterations of linear warm-up of the learning rate; -1 for none."
    )
    precision: Precision = Field(
        "fp32", description="Number format of the forward and backward passes; fp16 scales the loss."
    )
    accumulation: OrNull[Positive] = Field(
        1, description="Number of batches whose gradients a step adds up, one after the other."
    )
    grad_clip: PositiveNumber | None = Field(None, description="Largest norm of the gradient; no clipping if none.")
    ema_decay: Decay = Field(
        0.0, description="Decay of the moving average of the weights, params_ema; 0 for no average."
    )
    ema_warmup: OrNull[Switch] = Field(
        False, description="Whether to begin with a smaller decay, so that a short run forgets the initial weights."
    )
    compile: OrNull[Switch] = Field(False, description="Whether to compile the network by torch.compile.")
    optim_g: Optimizer = Field(description="Optimizer.")
    scheduler: Scheduler = Field(description="Learning rate schedule.")
    pixel_opt: Annotated[Loss | None, EMPTY_IS_NONE] = Field(None, description="Loss between pixels.")
    perceptual_opt: Annotated[PerceptualLoss | None, EMPTY_IS_NONE] = Field(
        None, description="Loss between features. At least one of the two losses is needed."
    )


class Metric(Section):
    """Metric and its arguments."""

    must_be: ClassVar[str] = "a section with a type"
    type: Text = Field(
        description="calculate_psnr, calculate_ssim, calculate_niqe, the name of a metric of pyiqa such as lpips, or "
        "any registered with BasicSR."
    )
    crop_border: NotNegative | None = Field(
        None, description="Pixels to leave out at each border, usually `scale`; psnr, ssim and niqe need it."
    )
    test_y_channel: OrNull[Switch] = Field(
        False, description="Whether to measure the Y channel of YCbCr in place of RGB."
    )
    input_order: Text = Field("HWC", description="Order of the image's dimensions, HWC or CHW.")
    better: Annotated[Literal["higher", "lower"], MustBe("higher or lower")] | None = Field(
        None, description="Whether higher or lower values are better; higher if not given, or as pyiqa says."
    )


class Val(Section):
    """Test, or validation during training."""

    val_freq: Positive | None = Field(None, description="Iterations from one validation to the next.")
    save_img: OrNull[Switch] = Field(True, description="Whether to save upscaled images.")
    suffix: Annotated[str | int | float, MustBe("text")] | None = Field(
        None, description="Suffix of the names of saved images; the name of the run if none."
    )
    metrics: Annotated[dict[str, Metric] | None, EMPTY_IS_NONE] = Field(
        None, description="Metrics by name, of any choice; none if not given."
    )
    bicubic: OrNull[Switch] = Field(False, description="Whether to measure bicubic upscaling too.")
    comparison: OrNull[Switch] = Field(
        False, description="Whether a test writes a sheet of details beside bicubic and ground truth."
    )
    report: OrNull[Switch] = Field(True, description="Whether a test writes report.html.")
    pbar: Switch | None = Field(
        None, description="Used by BasicSR's own train.py and test.py only; here there is always a progress bar."
    )


class TrainingVal(Val):
    """Validation during training."""

    val_freq: Positive = _as_in(Val, "val_freq")
    save_img: OrNull[Switch] = _as_in(Val, "save_img", False)
    report: OrNull[Switch] = _as_in(Val, "report", False)


class Wandb(Section):
    """Weights & Biases."""

    must_be: ClassVar[str] = "a section with a project"
    project: Text | None = Field(None, description="Project to log to; needs `use_tb_logger: true`.")
    resume_id: Text | None = Field(None, description="Identifier of the run to go on with.")


class Logger(Section):
    """Logs and checkpoints of a training run."""

    print_freq: Positive = Field(description="Iterations from one line of the log to the next.")
    save_checkpoint_freq: Positive = Field(description="Iterations from one checkpoint to the next.")
    keep_last: Positive | None = Field(None, description="Number of newest checkpoints to keep; all if not given.")
    save_best: Text | None = Field(
        None, description="Name of the metric whose best weights are saved as net_g_best.pth."
    )
    use_tb_logger: OrNull[Switch] = Field(False, description="Whether to log to TensorBoard too.")
    wandb: Annotated[Wandb | None, EMPTY_IS_NONE] = Field(None, description="Logging to Weights & Biases.")


class DistParams(Section):
    """Communication of several processes."""

    backend: Text = Field("nccl", description="nccl for GPUs, gloo for the CPU.")
    port: Port | None = Field(
        None, description="Port of the first process's machine if the launcher chooses none; 29500 if not given."
    )


# ------------------------------------------------------------------------------------------------------ option files


class Options(Section):
    """Options of a test run; those of training are checked where they are given."""

    name: FolderName = Field(description="Name of the run and of its folder in experiments/ or results/.")
    model_type: Text = Field(description="DRCTModel, or any model registered with BasicSR.")
    scale: Positive = Field(description="Scale factor.")
    num_gpu: NumGPU = Field(description="Number of GPUs, auto for all, 0 for the CPU.")
    manual_seed: NotNegative | None = Field(None, description="Seed of all random numbers; a random one if none.")
    precision: Precision = Field("fp32", description="Number format of inference.")
    self_ensemble: OrNull[Switch] = Field(
        False, description="Whether to average the results of the 8 rotations and reflections of an image."
    )
    find_unused_parameters: OrNull[Switch] = Field(
        False, description="Passed to DistributedDataParallel, for networks that do not use all their parameters."
    )
    tile: Tile | Literal["auto"] | None = Field(
        None, description="Tiles for limited memory; auto takes tiles only where the free memory does not suffice."
    )
    datasets: Datasets = Field(description="Images to train, validate or test on, by name.")
    network_g: AnyNetwork = Field(description="Network and its arguments.")
    path: Paths = Field(description="Files of weights and states to begin with.")
    train: Train | None = Field(None, description="Training.")
    val: OrNull[Val] = Field(
        default_factory=lambda: Val.model_validate({}), description="Test, or validation during training."
    )
    logger: Logger | None = Field(None, description="Logs and checkpoints of a training run.")
    dist_params: OrNull[DistParams] = Field(
        default_factory=lambda: DistParams.model_validate({}), description="Communication of several processes."
    )

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics by name."""
        return self.val.metrics or {} if self.val else {}


class TrainingOptions(Options):
    """Options of a training run."""

    datasets: TrainingDatasets = _as_in(Options, "datasets")
    train: Train = _as_in(Options, "train")
    val: TrainingVal | None = _as_in(Options, "val", None)  # type: ignore[assignment]
    logger: Logger = _as_in(Options, "logger")


def known_keys(section: type[Section] = Section) -> set[str]:
    """Return the keys of a kind of section, by default of all sections."""
    return set(section.model_fields).union(*map(known_keys, section.__subclasses__()))


class _WithoutTitles(GenerateJsonSchema):
    """JSON schema without a title for every key, which editors would show in place of the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False."""
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of option files of training and testing, for editors."""
    schema = Options.model_json_schema(schema_generator=_WithoutTitles)
    names = {"patternProperties": {"^(train|val|test)_": {"$ref": "#/$defs/Dataset"}}, "additionalProperties": False}
    schema["$defs"]["Datasets"] |= names
    training = {"val": {"required": ["val_freq"]}, "datasets": {"required": ["train"]}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **schema,
        "title": "Option file of DRCT",
        "description": "Options of a training or test run, in BasicSR's format.",
        "$comment": f"made by pydantic {'.'.join(VERSION.split('.')[:2])}",  # others write the same in another way
        "if": {"required": ["train"]},
        "then": {"required": ["logger"], "properties": training},
    }
