"""Quantization-aware training on top of whatever the model already carries."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from torch import nn

from edgekd.errors import PostconditionError, PreconditionError, fault
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import get_scheme
from edgekd.recipe_stages import QuantizeStage
from edgekd.stages.base import StageContext, StageOutcome
from edgekd.stages.distill import require_finite
from edgekd.stages.teaching import require_training, teacher_for
from edgekd.train import fit


class Quantize:
    def __init__(self, recipe: QuantizeStage) -> None:
        self.recipe = recipe
        self.name: str = recipe.stage

    def requires(self, model: nn.Module, context: StageContext) -> None:
        require_layers(model, self.name)
        require_training(self.recipe, model, context, folded=True)

    def apply(self, model: nn.Module, context: StageContext) -> StageOutcome:
        quantized = self._prepare(model.cpu(), context)
        seen = quantized.calibrate(context.calibration(self.recipe.calibration_samples))

        def freeze_late(step: int, total: int) -> None:
            frozen = step >= self.recipe.freeze_after * total
            quantized.set_phase("frozen" if frozen else "train")

        result = fit(
            quantized, self.recipe, stage=context.name, data=context.data, preprocess=context.preprocess,
            teacher=teacher_for(self.recipe, context), seed=context.seed, folder=context.folder,
            accelerator=context.accelerator, workers=context.workers, progress=context.progress,
            on_step=freeze_late,
        )  # fmt: skip
        quantized.set_phase("frozen")
        facts = {
            "method": self.recipe.method,
            "scheme": quantized.scheme.name,
            "calibration_samples": seen,
            "float_layers": quantized.float_layers,
            "ranges": len(quantized.quantizers),
            "best_epoch": result.best_epoch,
            "criterion": result.criterion,
        }
        return StageOutcome(quantized, facts, [asdict(entry) for entry in result.history])

    def attach(self, model: nn.Module, facts: dict[str, Any], context: StageContext) -> nn.Module:
        quantized = self._prepare(model, context)
        quantized.set_phase("frozen")
        return quantized

    def _prepare(self, model: nn.Module, context: StageContext) -> QuantizedModel:
        return prepare_qat(
            model, context.example, get_scheme(context.scheme), exclude=self.recipe.exclude,
            ranges=self.recipe.ranges, weight_bits=self.recipe.weight_bits,
        )  # fmt: skip

    def ensures(self, model: nn.Module) -> None:
        check_ranges(model, self.name)


def require_layers(model: nn.Module, stage: str) -> None:
    """
    Raises:
        PreconditionError: there is nothing to quantize.
    """
    if not any(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in model.modules()):
        raise PreconditionError(fault(stage, "the model has no convolution or linear layer to quantize"))


def check_ranges(model: nn.Module, stage: str) -> None:
    """
    Raises:
        PostconditionError: the model is not quantized, or a weight or a range cannot be used.
    """
    require_finite(model, stage)
    if not isinstance(model, QuantizedModel):
        raise PostconditionError(fault(stage, "the model is not quantized any more"))
    for name, quantizer in model.quantizers.items():
        low, high = float(quantizer.low), float(quantizer.high)  # type: ignore[arg-type]
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise PostconditionError(fault(stage, f"range {name} is not usable", got=(low, high)))
