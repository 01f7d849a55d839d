"""The trained student as one checked file per device, measured beside its fp32 baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd import __version__
from edgekd.data.source import Dataset, Progress, Split
from edgekd.device import DeviceSpec, check_opset
from edgekd.errors import ExportError, RecipeError, fault
from edgekd.evaluation import onnx_logits, score, torch_logits
from edgekd.export.bundle import write_bundle
from edgekd.export.coverage import check_coverage, require_coverage
from edgekd.export.explicit import check_explicit
from edgekd.export.parity import parity, require_parity
from edgekd.export.sparsity import check_sparsity
from edgekd.export.trace import OPSET_MAX, OPSET_MIN_INT8
from edgekd.export.write import compressed_size, export_float, export_quantized
from edgekd.models.loaded import LoadedModel
from edgekd.profiles import Measurement, measure, profile_operators
from edgekd.prune.apply import masked_layers
from edgekd.prune.eligibility import find_eligible
from edgekd.prune.pattern import Pattern
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.schemes import get_scheme
from edgekd.recipe import Recipe
from edgekd.report.schema import DeployFacts
from edgekd.train import network

DEPLOYED, STUDENT_FP32, TEACHER_FP32 = "deployed", "student fp32", "teacher fp32"


def plan_opset(recipe: Recipe, spec: DeviceSpec) -> int:
    """The opset of the file for ``spec``; asked before any training.

    Raises:
        DeviceError: the device's runtime cannot load it.
        RecipeError: it cannot be written.
    """
    opset = recipe.export.opset or spec.opset_export
    check_opset(spec, opset)
    if not OPSET_MIN_INT8 <= opset <= OPSET_MAX:
        raise RecipeError(
            fault("export.opset", "cannot be written", got=opset, allowed=f"{OPSET_MIN_INT8} to {OPSET_MAX}")
        )
    return opset


@dataclass
class Baselines:
    """The fp32 files that every deployed file is compared with; ``teacher`` is None without a teacher."""

    student: Path
    teacher: Path | None
    metrics: dict[str, dict[str, Any]]


def write_baselines(
    folder: Path,
    dense: nn.Module,
    teacher: LoadedModel | None,
    student: LoadedModel,
    *,
    data: Dataset,
    teacher_logits: np.ndarray | None,
    opset: int,
    progress: Progress | None,
) -> Baselines:
    """The student before pruning and quantization, and the teacher, as fp32 ONNX, batch norms folded.

    A black-box teacher is its own baseline. Files that stand already are kept.
    """
    example = torch.zeros(2, *student.preprocess.input_shape)
    student_file = folder / "student-fp32.onnx"
    if not student_file.exists():
        export_float(dense.cpu(), example, student_file, opset=opset)
    teacher_file: Path | None = None
    if teacher is not None:
        black_box = getattr(teacher.module, "path", None) if teacher.weights == "onnx" else None
        teacher_file = Path(black_box) if black_box else folder / "teacher-fp32.onnx"
        if not teacher_file.exists():
            export_float(
                teacher.module.cpu(),
                torch.zeros(2, *teacher.preprocess.input_shape),
                teacher_file,
                opset=opset,
            )
    metrics = {}
    for label, file, preprocess in (
        (STUDENT_FP32, student_file, student.preprocess),
        (TEACHER_FP32, teacher_file, teacher.preprocess if teacher else student.preprocess),
    ):
        if file is not None:
            logits = onnx_logits(file, data.test, preprocess, what=f"evaluate {label}", progress=progress)
            metrics[label] = score(logits, data.test, teacher_logits)
    return Baselines(student_file, teacher_file, metrics)


def deploy(
    model: nn.Module,
    spec: DeviceSpec,
    folder: Path,
    *,
    recipe: Recipe,
    data: Dataset,
    student: LoadedModel,
    classes: Sequence[str],
    teacher_logits: np.ndarray | None,
    baselines: Baselines,
    out: Path,
    progress: Progress | None,
) -> DeployFacts:
    """Export for ``spec``, read the file back, evaluate it on the test split, measure it where possible.

    Raises:
        ExportError: a guarantee does not hold in the written file: pattern, integer kernels, parity.
        DeviceError: the device's runtime cannot load the opset.
    """
    model = model.cpu().eval()
    preprocess = student.preprocess
    example = torch.zeros(2, *preprocess.input_shape)
    opset = plan_opset(recipe, spec)
    warnings: list[str] = []
    reference: nn.Module = model
    path = folder / "model.onnx"
    metadata = {"preprocess": preprocess.model_dump_json(), "recipe": recipe.name}
    if isinstance(model, QuantizedModel):
        reference = model if model.scheme.name == spec.scheme else model.with_scheme(get_scheme(spec.scheme))
        file = export_quantized(reference, example, path, opset=opset, metadata=metadata)
    else:
        file = export_float(model, example, path, opset=opset, metadata=metadata)
    check_opset(spec, file.opset)
    warnings += file.notes
    sparsity = _sparsity(model, path, recipe, spec, warnings)
    quantization = _quantization(reference, path, recipe, spec, warnings)
    agreement = _parity(reference, path, data, recipe, student, progress)
    logits = onnx_logits(path, data.test, preprocess, what=f"evaluate {spec.name}", progress=progress)
    metrics = score(logits, data.test, teacher_logits)
    write_bundle(
        folder, model_file=path, classes=list(classes), preprocess=preprocess, device=spec,
        facts={"edgekd": __version__, "recipe": recipe.name, "top1": metrics["top1"], "scheme": spec.scheme
               if isinstance(model, QuantizedModel) else "fp32", "pattern": sparsity and sparsity["pattern"]},
    )  # fmt: skip
    entry: dict[str, Any] = {
        "device": spec.name, "device_title": spec.title, "runtime": spec.runtime, "metrics": metrics,
        "file": str(path.relative_to(out)), "sha256": file.sha256, "size_bytes": file.size_bytes,
        "compressed_bytes": file.compressed_bytes, "parity": agreement, "sparsity": sparsity,
        "quantization": quantization, "opset": file.opset, "warnings": warnings,
        "baseline": _baseline(baselines, out),
    }  # fmt: skip
    _measure(entry, path, baselines, recipe, spec, progress)
    return DeployFacts.model_validate(entry)


def _sparsity(
    model: nn.Module, path: Path, recipe: Recipe, spec: DeviceSpec, warnings: list[str]
) -> dict[str, Any] | None:
    stage = next((stage for stage in recipe.stages if stage.stage == "prune"), None)
    if stage is None:
        return None
    found = check_sparsity(path, stage.pattern, layers=list(masked_layers(network(model))))
    if found.violations:
        raise ExportError(
            fault(
                str(path),
                f"{stage.pattern} does not hold in the written integers",
                got=f"{found.violations} groups",
            )
        )
    if not spec.sparse_2to4:
        warnings.append(
            f"{spec.title} has no kernels for {stage.pattern} weights: the zeros make the file compress "
            "better, they do not make it faster there"
        )
    facts = asdict(found)
    reasons = find_eligible(network(model), Pattern.parse(stage.pattern), exclude=stage.exclude).skipped
    facts["skipped"] = [{"name": name, "reason": reason} for name, reason in reasons]
    return facts


def _quantization(
    model: nn.Module, path: Path, recipe: Recipe, spec: DeviceSpec, warnings: list[str]
) -> dict[str, Any] | None:
    """The kernel-coverage gate, under the device's rule; the other rules are reported beside it."""
    if not isinstance(model, QuantizedModel):
        return None
    reports = {rule: check_coverage(path, rule) for rule in ("x86", "arm")}
    report = reports[spec.kernel_rule]
    if spec.runtime == "tensorrt":
        report = reports["explicit"] = check_explicit(path)
        warnings.append(
            "coverage counts the layers that the file asks to run in int8; TensorRT chooses its kernels on the "
            "board: not checked here"
        )
    require_coverage(report, recipe.export.min_coverage, str(path))
    if not spec.int8:
        warnings.append(f"{spec.title} has no int8 kernels: the file is smaller there, not faster")
    return {
        "scheme": spec.scheme, "integer_ops": report.integer_ops, "float_ops": report.float_ops,
        "coverage": report.coverage, "rule": report.rule,
        "rules": {rule: asdict(each) for rule, each in reports.items()},
    }  # fmt: skip


def _parity(
    reference: nn.Module,
    path: Path,
    data: Dataset,
    recipe: Recipe,
    student: LoadedModel,
    progress: Progress | None,
) -> dict[str, Any]:
    count = min(recipe.export.parity_samples, len(data.test))
    split = Split("parity", data.test.source, data.test.indices[:count])
    expected = torch_logits(
        reference, split, student.preprocess, torch.device("cpu"), what="parity, torch", progress=progress
    )
    written = onnx_logits(path, split, student.preprocess, what="parity, ONNX", progress=progress)
    found = parity(expected, written, reference="trained torch model with fake-quant"
                   if isinstance(reference, QuantizedModel) else "trained torch model")  # fmt: skip
    require_parity(found, recipe.export.min_agreement, str(path))
    return asdict(found)


def _baseline(baselines: Baselines, out: Path) -> dict[str, Any]:
    def facts(path: Path, label: str) -> dict[str, Any]:
        name = str(path.relative_to(out)) if path.is_relative_to(out) else path.name
        return {"file": name, "size_bytes": path.stat().st_size, "compressed_bytes": compressed_size(path),
                "metrics": baselines.metrics[label], "latency": []}  # fmt: skip

    entry = facts(baselines.student, STUDENT_FP32)
    if baselines.teacher is not None:
        entry["teacher"] = facts(baselines.teacher, TEACHER_FP32)
    return entry


def _measure(
    entry: dict[str, Any],
    path: Path,
    baselines: Baselines,
    recipe: Recipe,
    spec: DeviceSpec,
    progress: Progress | None,
) -> None:
    """Latency of the file and both baselines, interleaved; only the machine at hand can be measured here."""
    if spec.name != "cpu":
        entry["warnings"].append(
            f"latency on {spec.title} is not measured: the board is not at hand "
            f"(edgekd profile {entry['file']} on the board itself measures it)"
        )
        return
    models = {DEPLOYED: path, STUDENT_FP32: baselines.student}
    if baselines.teacher is not None:
        models[TEACHER_FP32] = baselines.teacher
    settings = recipe.profile

    def advance(done: int, total: int, label: str) -> None:
        if progress is not None:
            progress(f"measure {label}".strip(), done, total)

    entry["latency"] = []
    for position, threads in enumerate(settings.threads):
        found: Measurement = measure(
            models, threads=threads, rounds=settings.rounds, runs=settings.runs, warmup=settings.warmup,
            device=spec.name, progress=advance,
        )  # fmt: skip
        entry["latency"].append(found.reports[DEPLOYED].to_json())
        entry["baseline"]["latency"].append(found.reports[STUDENT_FP32].to_json())
        if TEACHER_FP32 in found.reports:
            entry["baseline"]["teacher"]["latency"].append(found.reports[TEACHER_FP32].to_json())
        if position == 0:
            _speedups(entry, found, threads)
    costs = profile_operators(path, threads=settings.threads[0])
    entry["operators"] = [cost.to_json() for cost in costs]


def _speedups(entry: dict[str, Any], found: Measurement, threads: int) -> None:
    against_student = found.ratio(STUDENT_FP32, DEPLOYED)
    entry["speedup_vs_student_fp32"] = against_student.value
    entry["speedup_interval"] = [against_student.low, against_student.high]
    if TEACHER_FP32 in found.reports:
        entry["speedup_vs_teacher"] = found.ratio(TEACHER_FP32, DEPLOYED).value
    if against_student.value < 1:
        entry["warnings"].insert(
            0, f"SLOWER: the deployed file takes {1 / against_student.value:.2f} times as long as its own "
            f"fp32 baseline ({threads} thread); ship baseline/student-fp32.onnx for speed",
        )  # fmt: skip


__all__ = ["Baselines", "deploy", "plan_opset", "write_baselines"]
