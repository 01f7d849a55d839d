"""What the stage ``quantize`` may ask, by its method. No torch here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from edgekd.recipe_substitute import Substitute
from edgekd.recipe_train import Strict, TrainRecipe


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
    substitute: Substitute = Field(
        default_factory=dict,
        description="activations exchanged for ones that integers do faster (silu: relu, gelu: quick-gelu; or "
        "relu, for all); this training has to make up for them",
    )


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
    rounding: Literal["auto", "nearest", "gptq"] = Field(
        default="auto",
        description="of weights; gptq: errors cancel in a layer's output; auto: where it helps",
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


class WeightOnlyStage(Strict):
    """Weights of linear layers in 4 or 8 bits, one scale a block; activations stay in float. Nothing is trained."""

    stage: Literal["quantize"] = "quantize"
    method: Literal["weight-only"] = "weight-only"
    bits: Literal[4, 8] = 4
    group_size: Literal[16, 32, 64, 128, 256] = Field(
        default=32, description="neighbouring weights of an output that share a scale"
    )
    algorithm: Literal["rtn", "gptq", "awq"] = Field(
        default="rtn", description="round to nearest; gptq and awq look at calibration samples"
    )
    symmetric: bool = Field(default=False, description="no zero points: zeros of a 2:4 mask stay zeros")
    products: Literal["int8", "float"] = Field(
        default="int8", description="int8: the runtime rounds what a layer reads to 8 bits, block by block"
    )
    tables: bool = Field(default=True, description="embedding tables in int8")
    calibration_samples: int = Field(default=128, ge=1)
    calibration: Literal["even", "classes", "random"] = "even"
    exclude: list[str] = Field(default_factory=list, description="module names (fnmatch) that stay in float")

    @property
    def scheme(self) -> str:
        """In words, for reports."""
        zeros = "" if self.symmetric else " with zero points"
        return f"int{self.bits} weights in blocks of {self.group_size}{zeros}"
