"""Which file goes out: integers throughout, a mix, or float, whichever is measured fastest on this machine.

An int8 file is not faster because it is int8: an operation without an integer kernel costs two conversions,
and a small layer gains less than they take. So the trained integers are written, their blocks are compared
with the same network in float operator by operator, blocks that lose go back to float in a second file, and
all of them are measured interleaved. Accuracy is compared on the validation split: the test split chooses
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from edgekd.blocks import BlockCost, block_of, compare_blocks
from edgekd.data.source import Dataset, Progress, Split
from edgekd.errors import PreconditionError
from edgekd.evaluation import criterion, onnx_logits, score
from edgekd.export.write import ExportedFile, export_float, export_quantized
from edgekd.preprocess_text import AnyPreprocess
from edgekd.profiles import Measurement, measure, profile_operators
from edgekd.quant.partial import float_twin, leave_in_float, quantized_layers
from edgekd.quant.qat import QuantizedModel
from edgekd.recipe import Recipe

INT8, MIXED, FP32 = "int8", "mixed", "fp32"
# A block goes back to float when its integers take this much longer than float: less is within the noise of
# the runtime's profiler, and float weights cost four times the bytes.
SLOWER_BLOCK = 1.15
# Fraction of the validation samples that speed may cost: the same weights differ by ties, not by more.
MAX_DROP = 0.005


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
    recipe: Recipe,
    data: Dataset,
    preprocess: AnyPreprocess,
    opset: int,
    metadata: Mapping[str, str],
    kernels: Literal["x86", "arm"],
    progress: Progress | None,
) -> tuple[Variant, list[dict[str, Any]]]:
    """The variant to deploy, its file in the place of ``int8``'s, and a row for each that was tried."""
    settings, path = recipe.profile, int8.file.path
    threads = settings.threads[0]
    with ExitStack() as stack:
        variants = write_variants(
            int8, example, folder, opset=opset, metadata=metadata, threads=threads, kernels=kernels
        )
        for variant in variants[1:]:
            stack.callback(variant.file.path.unlink, missing_ok=True)
        measured = measure(
            {variant.name: variant.file.path for variant in variants},
            threads=threads, rounds=settings.rounds, runs=settings.runs, warmup=settings.warmup,
            progress=None if progress is None else lambda done, total, label: progress("choose a file", done, total),
        )  # fmt: skip
        count = min(recipe.export.parity_samples, len(data.validation))
        split = Split("variants", data.validation.source, data.validation.indices[:count])
        scores = {
            variant.name: _score(variant.file.path, split, preprocess, progress) for variant in variants
        }
        chosen = choose(variants, measured, scores)
        rows = variant_rows(variants, measured, scores, chosen)
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
    times = ", ".join(f"{row['name']} {row['p50_ms']:.2f} ms" for row in rows)
    if chosen.name == FP32:
        return f"deployed in float: integers are not faster on this machine ({times})"
    count = len(chosen.float_layers)
    return f"{count} layers are deployed in float, where integers are slower on this machine ({times})"


def write_variants(
    int8: Variant,
    example: Tensor,
    folder: Path,
    *,
    opset: int,
    metadata: Mapping[str, str],
    threads: int,
    kernels: Literal["x86", "arm"] = "x86",
) -> list[Variant]:
    """``int8`` itself, a mix where a block loses, and float; files with hidden names beside it."""
    assert isinstance(int8.model, QuantizedModel)
    twin = float_twin(int8.model)
    float_file = export_float(twin, example, folder / ".fp32.tmp.onnx", opset=opset, metadata=metadata)
    found = [int8, Variant(FP32, twin, float_file)]
    layers = quantized_layers(int8.model)
    slow = slow_blocks(int8.file.path, float_file.path, layers, threads=threads)
    reasons = {
        layer: f"its block takes {slow[name].int8_us:.0f} us in integers, {slow[name].fp32_us:.0f} us in float"
        for layer in layers
        if (name := block_of(layer)) in slow
    }
    if reasons and len(reasons) < len(layers):
        try:
            mixed = leave_in_float(int8.model, reasons, example, blocks=slow)
        except PreconditionError:
            return found  # the rest cannot stand alone; float and integers remain
        file = export_quantized(
            mixed, example, folder / ".mixed.tmp.onnx", opset=opset, metadata=metadata, kernels=kernels
        )
        found.insert(1, Variant(MIXED, mixed, file, reasons))
    return found


def slow_blocks(int8: Path, fp32: Path, layers: list[str], *, threads: int) -> dict[str, BlockCost]:
    """Blocks whose integers take clearly longer than float, by the runtime's own profiler."""
    one = profile_operators(int8, threads=threads)
    other = profile_operators(fp32, threads=threads)
    return {
        block.name: block
        for block in compare_blocks(one, other, layers)
        if block.int8_us > SLOWER_BLOCK * block.fp32_us
    }


def choose(variants: list[Variant], measured: Measurement, scores: Mapping[str, float | None]) -> Variant:
    """The first variant, unless another is faster beyond the noise and not less accurate.

    Args:
        variants: the smallest first.
        scores: a fraction of the validation samples by variant; None where there are no labels.
    """
    chosen = variants[0]
    for variant in variants[1:]:
        own, other = scores[chosen.name], scores[variant.name]
        if own is not None and other is not None and other < own - MAX_DROP:
            continue
        if measured.ratio(chosen.name, variant.name).low > 1:
            chosen = variant
    return chosen


def variant_rows(
    variants: list[Variant], measured: Measurement, scores: Mapping[str, float | None], chosen: Variant
) -> list[dict[str, Any]]:
    """For the report: what was tried, and what it cost."""
    return [
        {
            "name": variant.name,
            "deployed": variant is chosen,
            "p50_ms": measured.reports[variant.name].p50_ms,
            "speedup_vs_fp32": measured.ratio(FP32, variant.name).value if FP32 in measured.reports else None,
            "size_bytes": variant.file.size_bytes,
            "validation_score": scores[variant.name],
            "float_layers": [{"name": name, "reason": why} for name, why in variant.float_layers.items()],
        }
        for variant in variants
    ]


__all__ = ["Variant", "choose", "explain", "fastest", "slow_blocks", "variant_rows", "write_variants"]
