"""The recipe: everything that a run needs, as data. Unknown keys are refused with the nearest valid key.

A recipe is a YAML mapping. ``stages`` is a list of one-key mappings, run in that order::

    name: jetson-2to4
    teacher: timm:resnet50
    student: timm:resnet18
    data: {path: photos/}
    devices: [jetson-orin-nano]
    stages:
      - distill: {epochs: 20, objectives: {kd: {temperature: 4}, ce: {weight: 0.1}}}
      - prune: {pattern: "2:4", epochs: 8}
      - quantize: {epochs: 4}

Relative paths resolve against the recipe's own folder. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

import yaml
from pydantic import Field, model_validator

from edgekd.recipe_stages import DistillStage, Stage, Strict, TrainRecipe


class InputRecipe(Strict):
    """Overrides of the model's own preprocessing (timm's data config); unset keys keep the model's."""

    size: int | tuple[int, int] | None = Field(default=None, description="pixels: side, or [height, width]")
    channels: Literal[1, 3] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    crop_pct: float | None = Field(default=None, gt=0, le=1)
    max_length: int | None = Field(default=None, ge=4, description="tokens; longer text is cut")


class DataRecipe(Strict):
    """Where the samples come from and how they are split."""

    path: str = Field(
        description="folder, .csv/.jsonl/.parquet/.npz file, or builtin:NAME such as builtin:fashion-mnist"
    )
    labels: bool = Field(
        default=True, description="false: ground-truth labels are never read, not even if present"
    )
    image_column: str = "path"
    text_column: str = "text"
    pair_column: str | None = Field(
        default=None, description="the second text of a pair; unset: text_pair where the table has it"
    )
    label_separator: str | None = Field(
        default=None, min_length=1, description="several labels in one cell of a text table, such as '|'"
    )
    label_column: str = "label"
    split_column: str | None = None
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.9)
    test_fraction: float = Field(default=0.1, gt=0, lt=0.9)
    split_seed: int = 0
    max_broken: int = Field(default=0, ge=0, description="broken images skipped before the run stops")
    max_train: int | None = Field(
        default=None, gt=0, description="use at most this many training samples (seeded, stratified)"
    )
    max_test: int | None = Field(default=None, gt=0)
    workers: int | None = Field(
        default=None, ge=0, description="loader processes; unset: by format and cores"
    )


class ExportRecipe(Strict):
    min_coverage: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="share in integer kernels of the conv and linear nodes that are not in float on purpose",
    )
    min_agreement: float = Field(
        default=0.98, ge=0, le=1, description="same top-1, torch against the ONNX file"
    )
    parity_samples: int = Field(default=1024, ge=1)
    choose: Literal["fastest", "as-trained"] = Field(
        default="fastest",
        description="fastest: of the trained integers, a mix and float; measured here, estimated for a board",
    )
    opset: int | None = None


class ProfileRecipe(Strict):
    threads: list[int] = Field(default_factory=lambda: [1])
    rounds: int = Field(default=5, ge=1)
    runs: int = Field(default=60, ge=5)
    warmup: int = Field(default=10, ge=0)


class LimitsRecipe(Strict):
    """What the deployed file must keep; a run that misses a limit fails and says by how much."""

    max_accuracy_drop: float | None = Field(
        default=None, ge=0, description="fraction of top-1 under the teacher"
    )
    max_latency_ms: float | None = Field(default=None, gt=0)


class Recipe(Strict):
    name: str = "custom"
    description: str = ""
    task: Literal["image-classification", "text-classification"] = "image-classification"
    seed: int = Field(default=0, ge=0)
    teacher: str | None = Field(
        default=None, description="timm:, torch:, onnx: or a directory; null trains without one"
    )
    student: str = "same"
    input: InputRecipe = InputRecipe()
    data: DataRecipe
    devices: list[str] = Field(default_factory=lambda: ["cpu"], min_length=1)
    stages: list[Stage] = Field(min_length=1)
    export: ExportRecipe = ExportRecipe()
    profile: ProfileRecipe = ProfileRecipe()
    limits: LimitsRecipe = LimitsRecipe()

    @model_validator(mode="after")
    def _order(self) -> Recipe:
        kinds = [stage.stage for stage in self.stages]
        for kind in set(kinds):
            if kinds.count(kind) > 1 and kind == "quantize":
                raise ValueError("stages: quantize may stand once")
        if "quantize" in kinds and kinds.index("quantize") != len(kinds) - 1:
            raise ValueError(
                "stages: quantize must be the last stage: later training would leave the integer grid"
            )
        if "prune" in kinds and "distill" in kinds[kinds.index("prune") :]:
            raise ValueError(
                "stages: distill must stand before prune; prune fine-tunes with distillation itself"
            )
        methods = [getattr(stage, "method", None) for stage in self.stages if stage.stage == "prune"]
        if "nm" in methods and set(methods[methods.index("nm") :]) != {"nm"}:
            raise ValueError(
                "stages: prune: nm must stand after channels, depth and low-rank: a mask has the final shape"
            )
        if self.teacher is None:
            if self.student.partition("?")[0] == "same":
                raise ValueError("student: 'same' needs a teacher")
            for stage in self.stages:
                if not isinstance(stage, TrainRecipe):
                    continue
                taught = [name for name in stage.objectives if name != "ce"]
                if taught and getattr(stage, "teacher", None) in (None, "teacher"):
                    raise ValueError(
                        f"stages: {stage.stage}: objective {taught[0]!r} needs a teacher; only 'ce' does not"
                    )
        if "nm" in methods and any(getattr(stage, "algorithm", None) == "gptq" for stage in self.stages):
            raise ValueError(
                "stages: quantize: gptq writes into the weights that prune holds at zero; use rtn or awq"
            )
        for stage in self.stages:
            if isinstance(stage, DistillStage) and stage.data is not None and "ce" in stage.objectives:
                raise ValueError(
                    "stages: distill: data is read without labels, but objective 'ce' reads them"
                )
        if not self.data.labels and any(
            "ce" in stage.objectives for stage in self.stages if isinstance(stage, TrainRecipe)
        ):
            raise ValueError("data.labels is false, but an objective 'ce' reads labels; use kd alone")
        return self

    def hash(self) -> str:
        """sha256 of the canonical JSON: two recipes with one hash give the same run."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The complete recipe, in the form that :mod:`edgekd.recipe_file` reads."""
        data = self.model_dump(mode="json")
        data["stages"] = [{stage.pop("stage"): stage} for stage in data["stages"]]
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
