"""What a stage of a recipe may ask: its training and its own settings. One class per stage; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator


class Strict(BaseModel):
    """Unknown keys are refused, defaults are checked, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class AugmentRecipe(Strict):
    """Training augmentation. Arrays of the model's size take the vectorised path (crop, flip, erase)."""

    crop_padding: int = Field(
        default=0, ge=0, description="pixels of zero padding before a random crop back to size"
    )
    hflip: float = Field(default=0.5, ge=0, le=1)
    random_resized_crop: tuple[float, float] | None = Field(
        default=None, description="area share, such as [0.35, 1.0]"
    )
    auto_augment: str | None = Field(
        default=None, description="timm's config string, such as rand-m9-mstd0.5-inc1"
    )
    color_jitter: float = Field(default=0.0, ge=0)
    erasing: float = Field(default=0.0, ge=0, le=1)
    mixup: float = Field(default=0.0, ge=0, description="Beta(alpha, alpha); 0 is off")
    cutmix: float = Field(default=0.0, ge=0)


class ObjectiveRecipe(Strict):
    """One objective's weight and settings; ``edgekd objectives`` lists what each takes."""

    weight: float = Field(default=1.0, gt=0)
    temperature: float | None = Field(default=None, gt=0)
    layers: Literal["auto"] | list[tuple[str, str]] = Field(
        default="auto", description="[student, teacher] module names"
    )
    distance: Literal["mse", "cosine"] | None = None
    relation_heads: int | None = Field(default=None, ge=1)


class TrainRecipe(Strict):
    """The training that every stage may do."""

    epochs: int = Field(default=10, ge=0, le=10_000)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    warmup_epochs: float = Field(default=0.5, ge=0)
    min_lr_ratio: float = Field(default=0.01, ge=0, le=1)
    clip_norm: float | None = Field(default=5.0, gt=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    augment: AugmentRecipe = AugmentRecipe()
    objectives: dict[str, ObjectiveRecipe] = Field(
        default_factory=lambda: {"kd": ObjectiveRecipe()}, min_length=1
    )
    teacher_cache: bool = Field(
        default=False, description="store the teacher's answers; replay the augmentation"
    )
    cache_slots: int = Field(default=1, ge=1, description="distinct augmentation seeds before they repeat")
    cache_top_k: int = Field(default=10, ge=1)
    keep_best: bool = Field(default=True, description="end with the epoch that validated best")


class DistillStage(TrainRecipe):
    """Learn from the run's teacher on the run's data, or from another on other data."""

    stage: Literal["distill"] = "distill"
    teacher: str | None = Field(default=None, description="another teacher for this stage alone")
    data: str | None = Field(default=None, description="path of other data, read without labels")


class PruneStage(TrainRecipe):
    """N:M pruning along the reduction axis."""

    stage: Literal["prune"] = "prune"
    method: Literal["nm"] = "nm"
    pattern: str = "2:4"
    saliency: Literal["magnitude", "wanda"] = "magnitude"
    permute: bool = Field(default=False, description="permute channels first so that larger weights survive")
    mask: Literal["fixed", "sr-ste"] = "fixed"
    sr_ste_decay: float = Field(default=2e-4, ge=0)
    calibration_samples: int = Field(default=512, ge=1)
    exclude: list[str] = Field(default_factory=list, description="module names (fnmatch) that stay dense")
    teacher: Literal["teacher", "dense"] = "teacher"

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        n, _, m = value.partition(":")
        if not (n.isdigit() and m.isdigit() and 0 < int(n) < int(m)):
            raise ValueError("not an N:M pattern with 0 < N < M, such as 2:4")
        return value


class CutStage(TrainRecipe):
    """Pruning that leaves a smaller network: no zeros, fewer numbers. It trains after the cut."""

    stage: Literal["prune"] = "prune"
    calibration_samples: int = Field(default=512, ge=1)
    teacher: Literal["teacher", "dense"] = "teacher"


class ChannelStage(CutStage):
    """Whole channels and attention heads; exactly one target."""

    method: Literal["channels"] = "channels"
    ratio: float | None = Field(
        default=None, gt=0, lt=1, description="share of every layer's channels that goes"
    )
    macs: float | None = Field(
        default=None, gt=0, lt=1, description="share of the multiply-accumulates that is left"
    )
    latency_ms: float | None = Field(
        default=None, gt=0, description="of the fp32 file, 1 thread, on this CPU"
    )
    saliency: Literal["l1", "l2", "taylor", "bn-scale"] = "l2"
    scope: Literal["uniform", "global"] = Field(
        default="uniform", description="the same share of every layer, or the least of all scores"
    )
    round_to: int | None = Field(default=None, ge=1, le=64, description="channels; unset: 8, for TensorRT 16")
    steps: int = Field(
        default=1, ge=1, le=50, description="cuts on the way to the target, training after each"
    )
    step_epochs: int = Field(
        default=1, ge=0, description="training after each cut but the last, which has epochs"
    )
    exclude: list[str] = Field(
        default_factory=list, description="module names (fnmatch) that keep their width"
    )

    @model_validator(mode="after")
    def _one_target(self) -> ChannelStage:
        given = [key for key in ("ratio", "macs", "latency_ms") if getattr(self, key) is not None]
        if len(given) != 1:
            what = f"{' and '.join(given)} exclude each other" if given else "no target"
            raise ValueError(f"{what}; give one of ratio, macs, latency_ms")
        return self


class DepthStage(CutStage):
    """Whole residual blocks, the least important first."""

    method: Literal["depth"] = "depth"
    blocks: int | None = Field(default=None, ge=1, description="how many go")
    ratio: float | None = Field(default=None, gt=0, lt=1, description="share of those that can go")
    exclude: list[str] = Field(default_factory=list, description="block names (fnmatch) that stay")

    @model_validator(mode="after")
    def _one_target(self) -> DepthStage:
        if (self.blocks is None) == (self.ratio is None):
            raise ValueError("give one of blocks and ratio")
        return self


class LowRankStage(CutStage):
    """Two thin layers instead of each wide linear or 1x1 layer."""

    method: Literal["low-rank"] = "low-rank"
    compression: float = Field(default=2.0, gt=1, description="times fewer numbers in each layer")
    exclude: list[str] = Field(default_factory=list, description="module names (fnmatch) that stay whole")


class QuantizeStage(TrainRecipe):
    """Quantization-aware training; batch norm is folded first."""

    stage: Literal["quantize"] = "quantize"
    method: Literal["qat"] = "qat"
    ranges: Literal["moving-average", "learned"] = "moving-average"
    calibration_samples: int = Field(default=512, ge=1)
    freeze_after: float = Field(
        default=0.67, ge=0, le=1, description="share of the steps after which ranges are frozen"
    )
    weight_bits: int = Field(default=8, ge=2, le=8)
    exclude: list[str] = Field(default_factory=list, description="module names (fnmatch) that stay in float")


class PtqStage(Strict):
    """Post-training quantization: nothing is trained, ranges come from calibration samples."""

    stage: Literal["quantize"] = "quantize"
    method: Literal["ptq"] = "ptq"
    ranges: Literal["auto", "min-max", "percentile", "mse", "entropy"] = Field(
        default="mse", description="how an activation's range is chosen; auto: by what agrees best"
    )
    percentile: float = Field(default=99.99, gt=50, le=100, description="for ranges: percentile")
    calibration_samples: int = Field(default=200, ge=1)
    calibration: Literal["even", "classes", "random"] = Field(
        default="even", description="how they are chosen from the training split"
    )
    smooth: float | str | None = Field(
        default=None, description="SmoothQuant's alpha, 0 to 1; auto: measured layer by layer; null: off"
    )
    bias_correction: bool | Literal["auto"] = Field(
        default="auto", description="undo the mean error of rounded weights; auto: where it helps"
    )
    weight_bits: int = Field(default=8, ge=2, le=8)
    exclude: list[str] = Field(default_factory=list, description="module names (fnmatch) that stay in float")
    min_agreement: float | None = Field(
        default=None, ge=0, le=1, description="same top-1 as the float model; tuned until it holds"
    )
    max_accuracy_drop: float | None = Field(
        default=None, ge=0, le=1, description="fraction of top-1 under the float model; tuned until it holds"
    )
    tuning_samples: int = Field(default=200, ge=1, description="validation samples that a trial is judged on")
    max_trials: int = Field(
        default=8, ge=1, description="configurations tried before layers go back to float"
    )
    max_float_layers: int = Field(default=8, ge=0, description="most layers that may go back to float")
    sensitivity_seconds: float = Field(default=60, gt=0, description="time for measuring layers one by one")

    @field_validator("smooth", mode="before")
    @classmethod
    def _alpha(cls, value: Any) -> Any:
        if value in (None, "auto") or (value is False):  # YAML reads "off" as false
            return value or None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError("neither auto nor an alpha from 0 to 1")
        return float(value)

    @model_validator(mode="after")
    def _one_target(self) -> PtqStage:
        if self.min_agreement is not None and self.max_accuracy_drop is not None:
            raise ValueError("min_agreement and max_accuracy_drop exclude each other")
        return self


def _tag_of(stage: str, method: object) -> str:
    default = DEFAULT_METHODS.get(stage)
    return f"{stage}:{method or default}" if default else stage


def _tag(value: Any) -> str:
    """What tells the classes apart: the stage and, where it has several, the method."""
    if isinstance(value, Mapping):
        return _tag_of(str(value.get("stage")), value.get("method"))
    return _tag_of(str(getattr(value, "stage", "")), getattr(value, "method", None))


DEFAULT_METHODS = {"prune": "nm", "quantize": "qat"}
Stage = Annotated[
    Union[  # noqa: UP007
        Annotated[DistillStage, Tag("distill")],
        Annotated[PruneStage, Tag("prune:nm")],
        Annotated[ChannelStage, Tag("prune:channels")],
        Annotated[DepthStage, Tag("prune:depth")],
        Annotated[LowRankStage, Tag("prune:low-rank")],
        Annotated[QuantizeStage, Tag("quantize:qat")],
        Annotated[PtqStage, Tag("quantize:ptq")],
    ],
    Discriminator(_tag),
]
_CLASSES: tuple[Any, ...] = (
    DistillStage, PruneStage, ChannelStage, DepthStage, LowRankStage, QuantizeStage, PtqStage,
)  # fmt: skip
# ``distill``, ``quantize:ptq``, ...: the settings of each.
STAGE_KINDS: dict[str, Any] = {
    _tag_of(
        kind.model_fields["stage"].default, getattr(kind.model_fields.get("method"), "default", None)
    ): kind
    for kind in _CLASSES
}
STAGE_NAMES = tuple(dict.fromkeys(tag.partition(":")[0] for tag in STAGE_KINDS))


def methods_of(stage: str) -> list[str]:
    """The methods of a stage that has several, the default first."""
    found = [tag.partition(":")[2] for tag in STAGE_KINDS if tag.startswith(f"{stage}:")]
    return sorted(found, key=lambda method: method != DEFAULT_METHODS.get(stage))
