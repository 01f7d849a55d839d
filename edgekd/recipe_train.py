"""What any training of a recipe may ask: optimizer, augmentation, objectives. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
