"""Weight-only quantization: linear layers' weights in blocks of 4 or 8 bits, activations in float, no training."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgekd.errors import PostconditionError, PreconditionError, fault
from edgekd.models.fold import fold_batch_norms
from edgekd.quant.tables import large_tables, quantize_tables
from edgekd.quant.weight_blocks import reserve, weight_blocks
from edgekd.quant.weight_only import linear_layers, quantize_weights
from edgekd.recipe_stages import WeightOnlyStage
from edgekd.stages.base import StageContext, StageOutcome
from edgekd.stages.calibration import calibration_batches
from edgekd.stages.distill import require_finite

# A file shrinks by what stands in linear layers and tables: below this share of the parameters it is not worth
# the trouble, and int8 throughout is smaller and faster.
_WORTH = 0.3
_TABLE_MAX = 127  # int8, symmetric


class WeightOnly:
    def __init__(self, recipe: WeightOnlyStage) -> None:
        self.recipe = recipe
        self.name: str = recipe.stage

    def requires(self, model: nn.Module, context: StageContext) -> None:
        recipe = self.recipe
        layers, _ = linear_layers(model, context.example, recipe.group_size, recipe.exclude)
        tables = large_tables(model) if recipe.tables else []
        total = sum(parameter.numel() for parameter in model.parameters())
        held = sum(_weight(model, name).numel() for name in (*layers, *tables))
        if not layers or held < _WORTH * total:
            raise PreconditionError(
                fault(f"{self.name}.method", "weight-only is not worth it for this model: its linear layers hold "
                      f"{held / total:.0%} of {total:,} parameters", got="weight-only",
                      allowed=f"at least {_WORTH:.0%}", fix="method: ptq or qat quantizes convolutions too")
            )  # fmt: skip

    def apply(self, model: nn.Module, context: StageContext) -> StageOutcome:
        recipe = self.recipe
        model.cpu().eval()
        fold_batch_norms(model, context.example)
        layers, left = linear_layers(model, context.example, recipe.group_size, recipe.exclude)
        facts: dict[str, Any] = {
            "method": recipe.method,
            "scheme": recipe.scheme,
            "algorithm": recipe.algorithm,
        }
        notes = [f"{name} stays float: {reason}" for name, reason in left.items()]
        batches = []
        if recipe.algorithm != "rtn":
            calibration = calibration_batches(context, recipe.calibration_samples, recipe.calibration)
            batches, facts["calibration"] = calibration.batches, calibration.facts
            notes.append(f"{recipe.algorithm.upper()} looked at {calibration.facts['samples']} of "
                         f"{calibration.facts['of']} {calibration.facts['split']} samples")  # fmt: skip
        progress = context.progress
        quantize_weights(
            model, layers, batches, context.example, bits=recipe.bits, group_size=recipe.group_size,
            algorithm=recipe.algorithm, symmetric=recipe.symmetric,
            watch=None if progress is None else lambda done, total: progress("round weights", done, total),
        )  # fmt: skip
        tables = quantize_tables(model, _TABLE_MAX) if recipe.tables else []
        facts |= {"layers": layers, "tables": tables, "float_layers": left}
        return StageOutcome(model, facts, [], notes)

    def attach(self, model: nn.Module, facts: dict[str, Any], context: StageContext) -> nn.Module:
        model.cpu().eval()
        fold_batch_norms(model, context.example)
        for name in facts["layers"]:
            layer = model.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            reserve(layer, bits=self.recipe.bits, size=self.recipe.group_size)
        if facts["tables"]:
            quantize_tables(model, _TABLE_MAX)
        return model

    def ensures(self, model: nn.Module) -> None:
        require_finite(model, self.name)
        if not weight_blocks(model):
            raise PostconditionError(fault(self.name, "the model's weights are not in blocks any more"))


def _weight(model: nn.Module, name: str) -> nn.Parameter:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, nn.Parameter)
    return weight
