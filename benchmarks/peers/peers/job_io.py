"""What the harness and a peer's script exchange. Runs inside the peer's environment: standard library and numpy.

The folder holds ``fp32.onnx`` (as ``torch.onnx`` wrote it: batch dynamic, batch norms folded),
``weights.safetensors`` (of the timm model ``job.json: timm``), ``calibration.npy`` and ``job.json``. The script
leaves its model and ``result.json`` there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Job:
    """Attributes:
    calibration: float32 ``(samples, channels, height, width)``, preprocessed.
    settings: the peer's, from ``peers.yaml``.
    """

    folder: Path
    timm: str
    input_name: str
    opset: int
    calibration: np.ndarray
    settings: dict[str, Any]

    @property
    def fp32(self) -> Path:
        return self.folder / "fp32.onnx"

    @property
    def model(self) -> Path:
        """Where the quantized ONNX file belongs."""
        return self.folder / "model.onnx"

    def feeds(self) -> Iterator[dict[str, np.ndarray]]:
        """One calibration sample at a time, as ONNX Runtime takes it."""
        for sample in self.calibration:
            yield {self.input_name: sample[None]}


def read_job() -> Job:
    folder = Path(sys.argv[1])
    facts = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    return Job(
        folder, facts["timm"], facts["input_name"], facts["opset"], np.load(folder / "calibration.npy"),
        facts["settings"],
    )  # fmt: skip


def run_job(quantize: Callable[[Job], list[str] | None]) -> None:
    """Read the job, time ``quantize`` (which writes the model and returns notes) and leave the result."""
    job = read_job()
    start = time.perf_counter()
    notes = quantize(job) or []
    result = {"seconds": time.perf_counter() - start, "peak_memory_bytes": peak_memory(), "notes": notes}
    (job.folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def peak_memory() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
