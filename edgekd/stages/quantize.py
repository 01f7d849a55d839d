"""Quantization-aware training on top of whatever the model already carries."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from torch import nn

from edgekd.errors import PostconditionError, PreconditionError, fault
from edgekd.quant.observe import observe
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import get_scheme
from edgekd.quant.settle import settle_scales
from edgekd.quant.substitute import Substitutions, exchange, require_activations
from edgekd.quant.zero_share import zero_shares
from edgekd.recipe_stages import QuantizeStage
from edgekd.stages.base import StageContext, StageOutcome
from edgekd.stages.distill import require_finite
from edgekd.stages.teaching import require_training, teacher_for
from edgekd.train import fit

_DIAGNOSED = 2  # batches that the per-layer diagnostic looks at after training


class Quantize:
    def __init__(self, recipe: QuantizeStage) -> None:
        self.recipe = recipe
        self.name: str = recipe.stage

    def requires(self, model: nn.Module, context: StageContext) -> None:
        require_layers(model, self.name)
        require_activations(model, context.example, self.recipe.substitute, where=context.name)
        require_training(self.recipe, model, context, folded=True)

    def apply(self, model: nn.Module, context: StageContext) -> StageOutcome:
        quantized, exchanged = self._prepare(model.cpu(), context)
        calibration = context.calibration(self.recipe.calibration_samples)
        seen = quantized.calibrate(calibration)

        def freeze_late(step: int, total: int) -> None:
            frozen = step >= self.recipe.freeze_after * total
            quantized.set_phase("frozen" if frozen else "train")

        training = context.training(teacher_for(self.recipe, context))
        result = fit(quantized, self.recipe, training, on_step=freeze_late)
        device = next(quantized.parameters()).device
        settle_scales(quantized, context.example.to(device))
        few = [batch.to(device) for batch in calibration[:_DIAGNOSED]]
        facts = {
            "method": self.recipe.method,
            "scheme": quantized.scheme.name,
            "calibration_samples": seen,
            "float_layers": quantized.float_layers,
            "ranges": len(quantized.quantizers),
            "zero_shares": zero_shares(quantized, observe(quantized, few)),
            "best_epoch": result.best_epoch,
            "criterion": result.criterion,
            "substituted": exchanged.to_json(),
        }
        history = [asdict(entry) for entry in result.history]
        return StageOutcome(quantized, facts, history, exchanged.sentences())

    def attach(self, model: nn.Module, facts: dict[str, Any], context: StageContext) -> nn.Module:
        quantized, _ = self._prepare(model, context)
        quantized.set_phase("frozen")
        return quantized

    def _prepare(self, model: nn.Module, context: StageContext) -> tuple[QuantizedModel, Substitutions]:
        exchanged = exchange(model, context.example, self.recipe.substitute, fold=True)
        quantized = prepare_qat(
            model, context.example, get_scheme(context.scheme), exclude=self.recipe.exclude,
            ranges=self.recipe.ranges, weight_bits=self.recipe.weight_bits,
        )  # fmt: skip
        return quantized, exchanged

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
