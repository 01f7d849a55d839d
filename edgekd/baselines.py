"""The fp32 files that every deployed file is compared with: the same student before pruning and quantization,
and the teacher."""

from __future__ import annotations

import filecmp
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd.data.source import Dataset, Progress
from edgekd.errors import ExportError
from edgekd.evaluation import onnx_logits, score
from edgekd.export.write import compressed_size, export_float
from edgekd.models.loaded import LoadedModel
from edgekd.preprocess_text import AnyPreprocess

STUDENT_FP32, TEACHER_FP32 = "student fp32", "teacher fp32"


@dataclass
class Baselines:
    """The fp32 files that every deployed file is compared with; ``teacher`` is None without a teacher.

    Attributes:
        same: both files are equal to the byte: what holds of one is not asked of the other again.
    """

    student: Path
    teacher: Path | None
    metrics: dict[str, dict[str, Any]]
    same: bool = False
    _compressed: dict[Path, int] = field(default_factory=dict)

    def compressed_bytes(self, path: Path) -> int:
        path = self.student if self.same else path
        if path not in self._compressed:
            self._compressed[path] = compressed_size(path)
        return self._compressed[path]


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
    student_file = folder / "student-fp32.onnx"
    if not student_file.exists():
        _write(student, dense, student_file, opset)
    teacher_file = None if teacher is None else _teacher_file(folder, teacher, opset)

    def judged(label: str, file: Path, preprocess: AnyPreprocess) -> dict[str, Any]:
        logits = onnx_logits(file, data.test, preprocess, what=f"evaluate {label}", progress=progress)
        return score(logits, data.test, teacher_logits)

    metrics = {STUDENT_FP32: judged(STUDENT_FP32, student_file, student.preprocess)}
    if teacher is None or teacher_file is None:
        return Baselines(student_file, None, metrics)
    same = filecmp.cmp(student_file, teacher_file, shallow=False) and teacher.preprocess == student.preprocess
    metrics[TEACHER_FP32] = (
        metrics[STUDENT_FP32] if same else judged(TEACHER_FP32, teacher_file, teacher.preprocess)
    )
    return Baselines(student_file, teacher_file, metrics, same)


def require_exportable(
    folder: Path, teacher: LoadedModel | None, student: LoadedModel, *, opset: int
) -> None:
    """Ask the exporter before hours of training, not after: the teacher's baseline is written, the student tried.

    Raises:
        ExportError: one of them cannot be written as ONNX.
    """
    try:
        told = "teacher"
        if teacher is not None:
            _teacher_file(folder, teacher, opset)
        if teacher is None or teacher.architecture != student.architecture:
            told = "student"
            with tempfile.TemporaryDirectory() as work:
                _write(student, student.module, Path(work) / "student.onnx", opset)
    except ExportError as error:
        raise ExportError(f"{told}, tried before any training: {error}") from error


def _teacher_file(folder: Path, teacher: LoadedModel, opset: int) -> Path:
    black_box = getattr(teacher.module, "path", None) if teacher.weights == "onnx" else None
    file = Path(black_box) if black_box else folder / "teacher-fp32.onnx"
    if not file.exists():
        _write(teacher, teacher.module, file, opset)
    return file


def _write(model: LoadedModel, module: nn.Module, file: Path, opset: int) -> None:
    example = torch.from_numpy(model.preprocess.example(2))
    metadata = {"preprocess": model.preprocess.model_dump_json()}
    export_float(module.cpu(), example, file, opset=opset, metadata=metadata)


def baseline_facts(baselines: Baselines, out: Path) -> dict[str, Any]:
    """The ``baseline`` entry of report.json; latencies are filled in by whoever measures."""

    def facts(path: Path, label: str) -> dict[str, Any]:
        name = str(path.relative_to(out)) if path.is_relative_to(out) else path.name
        return {"file": name, "size_bytes": path.stat().st_size, "compressed_bytes": baselines.compressed_bytes(path),
                "metrics": baselines.metrics[label], "latency": []}  # fmt: skip

    entry = facts(baselines.student, STUDENT_FP32)
    if baselines.teacher is not None:
        entry["teacher"] = facts(baselines.teacher, TEACHER_FP32)
    return entry
