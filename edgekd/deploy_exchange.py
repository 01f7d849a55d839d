"""An offer: what the deployed file would gain from activations that integers do for nothing.

Nothing is exchanged here. Where the prices of :mod:`edgekd.quant.regions` promise a noteworthy share, the
network is exported once more with ReLU in the place of what it has, untrained, and both files are measured
interleaved (on the machine at hand) or estimated (for a board). What it costs in accuracy only a training can
say; the report names the setting for that.
"""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekd.data.loader import eval_loader
from edgekd.data.source import Dataset, Progress, Split
from edgekd.device import DeviceSpec
from edgekd.errors import EdgeKDError
from edgekd.export.write import export_quantized
from edgekd.models.bake import bake_parametrizations
from edgekd.preprocess_text import AnyPreprocess
from edgekd.profiles import measure
from edgekd.profiles.estimation.api import estimate
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import get_scheme
from edgekd.quant.substitute import Substitutions, exchange
from edgekd.recipe import Recipe
from edgekd.recipe_stages import DistillStage, QuantizeStage
from edgekd.report.exchange import ExchangeFacts

INSTEAD = "relu"
# Shares of the deployed file's time: promised by prices, before anything is exported; and found, to be told.
PROMISED, TOLD = 0.05, 0.10
_DEPLOYED, _EXCHANGED = "deployed", "exchanged"
_SAMPLES = 16  # ranges need some values; speed does not see which


def offer_exchange(
    entry: dict[str, Any],
    path: Path,
    model: QuantizedModel,
    example: Tensor,
    *,
    recipe: Recipe,
    spec: DeviceSpec,
    data: Dataset,
    preprocess: AnyPreprocess,
    metadata: dict[str, str],
    progress: Progress | None,
) -> None:
    """Put :class:`ExchangeFacts` into ``entry`` where they are worth a reader's time.

    A network that cannot be exchanged, exported or priced costs the run a warning, never the run.

    Args:
        entry: a deployed file's, with its latency.
        path: the deployed file.
        model: the trained integer network behind it; not changed.
        metadata: the deployed file's: by it a text model is measured at its own length, with its own words.
    """
    if not entry.get("latency") or spec.runtime == "tensorrt":
        return  # TensorRT does an activation on the way out of the layer before it
    temporary = path.with_name(".exchanged.tmp.onnx")
    try:
        other, found = _exchanged(model, example)
        if found.saved_us < PROMISED * 1e3 * entry["latency"][0]["p50_ms"] or not found.exchanged:
            return
        quantized = prepare_qat(other, example, get_scheme(spec.scheme), exclude=list(model.float_layers))
        few = Split("exchange", data.validation.source, data.validation.indices[:_SAMPLES])
        batches = eval_loader(few, preprocess, batch_size=_SAMPLES, workers=0)
        quantized.calibrate(batch["inputs"] for batch in batches)
        quantized.set_phase("frozen")
        export_quantized(
            quantized, example, temporary, opset=entry["opset"], metadata=metadata, kernels=spec.kernel_rule
        )
        times = _times(path, temporary, entry, recipe, spec, progress)
    except EdgeKDError as error:
        entry["warnings"].append(f"what other activations would give is not known: {error}")
        return
    finally:
        temporary.unlink(missing_ok=True)
    counts = Counter(pair.partition(" ")[0] for pair in found.exchanged.values())
    facts = ExchangeFacts(
        activations=dict(counts.most_common()),
        instead=INSTEAD,
        setting=setting(recipe, list(counts)),
        **times,
    )
    if 1 - 1 / (facts.interval[0] if facts.interval else facts.speedup) >= TOLD:
        entry["exchange"] = facts.model_dump(mode="json")


def _exchanged(model: QuantizedModel, example: Tensor) -> tuple[nn.Module, Substitutions]:
    """A float copy with other activations, and which they are."""
    copied = copy.deepcopy(model).cpu().eval()
    copied.set_phase("off")
    bake_parametrizations(copied.model)
    return copied.model, exchange(copied.model, example, INSTEAD)


def _times(
    path: Path,
    other: Path,
    entry: dict[str, Any],
    recipe: Recipe,
    spec: DeviceSpec,
    progress: Progress | None,
) -> dict[str, Any]:
    """Both files' latency as :class:`ExchangeFacts` has it, had as the deployed file's own was."""
    settings = recipe.profile
    if spec.name != "cpu":
        threads = entry["latency"][0]["threads"]
        before, after = (estimate(file, spec, threads=threads).p50_ms for file in (path, other))
        return {"kind": "estimated", "deployed_ms": before, "exchanged_ms": after, "speedup": before / after,
                "threads": threads}  # fmt: skip

    def advance(done: int, total: int, label: str) -> None:
        if progress is not None:
            progress("measure other activations", done, total)

    found = measure(
        {_DEPLOYED: path, _EXCHANGED: other}, threads=settings.threads[0], rounds=settings.rounds,
        runs=settings.runs, warmup=settings.warmup, progress=advance,
    )  # fmt: skip
    ratio = found.ratio(_DEPLOYED, _EXCHANGED)
    return {
        "kind": "measured", "deployed_ms": found.reports[_DEPLOYED].p50_ms,
        "exchanged_ms": found.reports[_EXCHANGED].p50_ms, "speedup": ratio.value, "interval": (ratio.low, ratio.high),
        "threads": settings.threads[0],
    }  # fmt: skip


def setting(recipe: Recipe, activations: list[str]) -> str:
    """What to write: in the recipe's longest training from the teacher, else in its integer training."""
    for kind, name in ((DistillStage, "distill"), (QuantizeStage, "quantize")):
        stage = next((stage for stage in recipe.stages if isinstance(stage, kind)), None)
        if stage is not None:
            alone = len(activations) == 1 and not stage.substitute
            return f"--set {name}.substitute{f'.{activations[0]}' if alone else ''}={INSTEAD}"
    return "the recipe same-fast, which trains (edgekd compress same-fast)"
