"""Which file goes out: integers throughout, a mix, or float, whichever is fastest: measured on this machine, or
estimated for a board.

An int8 file is not faster because it is int8: an operation without an integer kernel costs two conversions,
and a small layer gains less than they take. So the trained integers are written, their blocks are compared
with the same network in float operator by operator, blocks that lose go back to float in a second file, and
all of them are timed (:mod:`edgekd.variant_times`). Accuracy is compared on the validation split: the test
split chooses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from edgekd.data.source import Dataset, Progress, Split
from edgekd.errors import PreconditionError
from edgekd.evaluation import criterion, onnx_logits, score
from edgekd.export.write import ExportedFile, export_float, export_quantized
from edgekd.mixtures import mixtures
from edgekd.preprocess_text import AnyPreprocess
from edgekd.quant.partial import float_twin, leave_in_float, quantized_layers
from edgekd.quant.qat import QuantizedModel
from edgekd.recipe import Recipe
from edgekd.variant_times import Clock, Ratios, Times

INT8, FP32 = "int8", "fp32"
# Fraction of the validation samples that speed may cost: the same weights differ by ties, not by more.
MAX_DROP = 0.005
# How many times as long as float a file may take in the median, where noise does not tell the two apart.
SLOWER = 1.03


@dataclass
class Variant:
    """One way to write the trained network.

    Attributes:
        model: what the file must answer like.
        float_layers: convolution and linear layers of an int8 or mixed file that compute in float, with the
            reason.
    """

    name: str
    model: nn.Module
    file: ExportedFile
    float_layers: dict[str, str] = field(default_factory=dict)


def fastest(
    int8: Variant,
    example: Tensor,
    folder: Path,
    *,
    clock: Clock,
    recipe: Recipe,
    data: Dataset,
    preprocess: AnyPreprocess,
    opset: int,
    metadata: Mapping[str, str],
    kernels: Literal["x86", "arm"],
    progress: Progress | None,
) -> tuple[Variant, list[dict[str, Any]]]:
    """The variant to deploy, its file in the place of ``int8``'s, and a row for each that was tried."""
    path = int8.file.path
    with ExitStack() as stack:
        variants = write_variants(
            int8, example, folder, clock=clock, opset=opset, metadata=metadata, kernels=kernels
        )
        for variant in variants[1:]:
            stack.callback(variant.file.path.unlink, missing_ok=True)
        times = clock.times({variant.name: variant.file.path for variant in variants})
        count = min(recipe.export.parity_samples, len(data.validation))
        split = Split("variants", data.validation.source, data.validation.indices[:count])
        scores = {
            variant.name: _score(variant.file.path, split, preprocess, progress) for variant in variants
        }
        chosen = choose(variants, times, scores)
        rows = variant_rows(variants, times, scores, chosen)
        if chosen is not int8:
            chosen.file.path.replace(path)
            chosen.file = replace(chosen.file, path=path)
    return chosen, rows


def _score(path: Path, split: Split, preprocess: AnyPreprocess, progress: Progress | None) -> float | None:
    logits = onnx_logits(path, split, preprocess, what="choose a file: accuracy", progress=progress)
    value: float | None = score(logits, split, None).get(criterion(split))
    return value


def explain(chosen: Variant, rows: list[dict[str, Any]]) -> str:
    """One line for the report on why the trained integers did not go out as they are."""
    known = "by estimate" if any(row["kind"] == "estimated" for row in rows) else "on this machine"
    times = ", ".join(f"{row['name']} {row['p50_ms']:.2f} ms" for row in rows)
    if chosen.name == FP32:
        return f"deployed in float: integers are not faster {known} ({times})"
    count = len(chosen.float_layers)
    return f"{count} layers are deployed in float, where integers are slower {known} ({times})"


def write_variants(
    int8: Variant,
    example: Tensor,
    folder: Path,
    *,
    clock: Clock,
    opset: int,
    metadata: Mapping[str, str],
    kernels: Literal["x86", "arm"] = "x86",
) -> list[Variant]:
    """``int8`` itself, mixtures where something loses, and float; files with hidden names beside it."""
    assert isinstance(int8.model, QuantizedModel)
    twin = float_twin(int8.model)
    float_file = export_float(twin, example, folder / ".fp32.tmp.onnx", opset=opset, metadata=metadata)
    found = [int8, Variant(FP32, twin, float_file)]
    layers = quantized_layers(int8.model)
    costs = [clock.operators(path) for path in (int8.file.path, float_file.path)]
    for mixture in mixtures(int8.model, example, layers, *costs, alone=kernels == "x86"):
        if len(mixture.reasons) == len(layers):
            continue
        try:
            mixed = leave_in_float(int8.model, mixture.reasons, example, blocks=mixture.blocks)
        except PreconditionError:
            continue  # the rest cannot stand alone
        path = folder / f".{mixture.name}.tmp.onnx"
        file = export_quantized(mixed, example, path, opset=opset, metadata=metadata, kernels=kernels)
        found.insert(-1, Variant(mixture.name, mixed, file, mixture.reasons))
    return found


def choose(variants: list[Variant], times: Ratios, scores: Mapping[str, float | None]) -> Variant:
    """The first variant, unless another is faster beyond the noise and not less accurate.

    Float needs less: a smaller file is no reason to ship one that takes longer than float in the median.

    Args:
        variants: the smallest first.
        scores: a fraction of the validation samples by variant; None where there are no labels.
    """
    chosen = variants[0]
    for variant in variants[1:]:
        own, other = scores[chosen.name], scores[variant.name]
        if own is not None and other is not None and other < own - MAX_DROP:
            continue
        ratio = times.ratio(chosen.name, variant.name)
        if ratio.low > 1 or (variant.name == FP32 and ratio.value > SLOWER):
            chosen = variant
    return chosen


def variant_rows(
    variants: list[Variant], times: Times, scores: Mapping[str, float | None], chosen: Variant
) -> list[dict[str, Any]]:
    """For the report: what was tried, and what it cost."""
    return [
        {
            "name": variant.name,
            "deployed": variant is chosen,
            "kind": times.kind,
            "p50_ms": times.p50_ms[variant.name],
            "speedup_vs_fp32": times.ratio(FP32, variant.name).value if FP32 in times.p50_ms else None,
            "size_bytes": variant.file.size_bytes,
            "validation_score": scores[variant.name],
            "float_layers": [{"name": name, "reason": why} for name, why in variant.float_layers.items()],
        }
        for variant in variants
    ]


__all__ = ["Variant", "choose", "explain", "fastest", "variant_rows", "write_variants"]
