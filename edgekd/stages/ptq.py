"""Post-training quantization: no training; calibration samples set the ranges."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import get_scheme
from edgekd.quant.settle import settle_scales
from edgekd.recipe_stages import PtqStage
from edgekd.stages.base import StageContext, StageOutcome
from edgekd.stages.ptq_search import PtqSearch
from edgekd.stages.quantize import check_ranges, require_layers


class PostTrainingQuantize:
    def __init__(self, recipe: PtqStage) -> None:
        self.recipe = recipe
        self.name: str = recipe.stage

    def requires(self, model: nn.Module, context: StageContext) -> None:
        require_layers(model, self.name)

    def apply(self, model: nn.Module, context: StageContext) -> StageOutcome:
        search = PtqSearch(self.recipe, model.cpu().eval(), context)
        quantized = search.run()
        settle_scales(quantized, context.example)
        return StageOutcome(quantized, search.facts, [], search.notes)

    def attach(self, model: nn.Module, facts: dict[str, Any], context: StageContext) -> nn.Module:
        kept = [entry["name"] for entry in facts["kept_float"]]
        quantized = prepare_qat(
            model, context.example, get_scheme(context.scheme), exclude=[*self.recipe.exclude, *kept],
            weight_bits=self.recipe.weight_bits,
        )  # fmt: skip
        quantized.float_layers = dict(facts["float_layers"])
        quantized.set_phase("frozen")
        return quantized

    def ensures(self, model: nn.Module) -> None:
        check_ranges(model, self.name)
