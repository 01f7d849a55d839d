"""The most sensitive layers of a post-training quantized network go back to float, with the weights they had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from edgekd.quant.kept_float import Relaxed, keep_in_float
from edgekd.quant.partial import leave_in_float
from edgekd.quant.ptq import shift_biases
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.rounding import put_weights
from edgekd.quant.sensitivity import LayerSensitivity, layer_sensitivity
from edgekd.recipe_stages import PtqStage
from edgekd.stages.base import StageContext
from edgekd.stages.ptq_judge import Judge

_RANKED = 32  # samples for each layer's sensitivity: divergences, unlike top-1, need few


@dataclass(frozen=True)
class Before:
    """What quantization changed in layers, to be undone where they go back to float.

    Attributes:
        corrections: by layer what was taken from its bias.
        weights: by layer its weight as stored before it was rounded.
    """

    corrections: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


def relax(
    model: QuantizedModel,
    before: Before,
    recipe: PtqStage,
    judge: Judge,
    context: StageContext,
    macs: dict[str, int],
) -> tuple[Relaxed, list[LayerSensitivity]]:
    """The network with as few layers in float as ``judge``'s target allows, and all layers by their cost."""
    assert judge.target is not None
    progress = context.progress
    few = [batch[:_RANKED] for batch in judge.batches[:1]]  # batches of texts differ in length
    rounded = put_weights(model, before.weights)  # what is compared with is the float network
    ranking = layer_sensitivity(
        model, few, seconds=recipe.sensitivity_seconds,
        progress=None if progress is None else lambda done, total: progress("sensitivity", done, total),
    )  # fmt: skip
    put_weights(model, rounded)

    def rebuild(layers: dict[str, str]) -> QuantizedModel:
        own = put_weights(model, {name: before.weights[name] for name in layers if name in before.weights})
        other = leave_in_float(model, layers, context.example, unrounded=True)  # a copy
        put_weights(model, own)
        shift_biases(
            other, {name: before.corrections[name] for name in layers if name in before.corrections}, 1
        )
        return other

    found = keep_in_float(
        model, ranking, rebuild=rebuild, evaluate=lambda candidate: judge.score(candidate)[0],
        target=judge.target, most=recipe.max_float_layers, macs=macs,
    )  # fmt: skip
    return found, ranking


def ranked(each: LayerSensitivity) -> dict[str, Any]:
    """For ``metrics.json``."""
    return {"name": each.name, "layers": list(each.layers), "kl": each.kl, "mse": each.mse,
            "agreement": each.agreement}  # fmt: skip
