"""The stages of a recipe: distilling, pruning, and the union of all. One class per stage; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from edgekd.recipe_quantize import PtqStage, QuantizeStage, WeightOnlyStage
from edgekd.recipe_substitute import QUICK_GELU, Substitute, pairs
from edgekd.recipe_train import AugmentRecipe, ObjectiveRecipe, Strict, TrainRecipe


class DistillStage(TrainRecipe):
    """Learn from the run's teacher on the run's data, or from another on other data."""

    stage: Literal["distill"] = "distill"
    teacher: str | None = Field(default=None, description="another teacher for this stage alone")
    data: str | None = Field(default=None, description="path of other data, read without labels")
    substitute: Substitute = Field(
        default_factory=dict,
        description="activations exchanged before this training for ones that integers do faster (silu: relu; or "
        "relu, for all)",
    )

    @field_validator("substitute")
    @classmethod
    def _float(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        if QUICK_GELU in pairs(value).values():
            raise ValueError(f"{QUICK_GELU} is of quantize.substitute: its factors need folded batch norms")
        return value


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

    @field_validator("pattern", mode="before")
    @classmethod
    def _unquoted(cls, value: object) -> object:
        """YAML 1.1 reads 2:4 without quotes as a number to base 60, 124."""
        return f"{value // 60}:{value % 60}" if type(value) is int else value

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
        Annotated[WeightOnlyStage, Tag("quantize:weight-only")],
    ],
    Discriminator(_tag),
]
_CLASSES: tuple[Any, ...] = (
    DistillStage, PruneStage, ChannelStage, DepthStage, LowRankStage, QuantizeStage, PtqStage,
    WeightOnlyStage,
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


__all__ = [
    "STAGE_KINDS", "STAGE_NAMES", "AugmentRecipe", "ChannelStage", "CutStage", "DepthStage", "DistillStage",
    "LowRankStage", "ObjectiveRecipe", "PruneStage", "PtqStage", "QuantizeStage", "Stage", "Strict", "TrainRecipe",
    "WeightOnlyStage", "methods_of",
]  # fmt: skip
