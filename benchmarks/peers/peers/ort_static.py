"""ONNX Runtime ``quantize_static``, with its defaults or with the settings that its documentation recommends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from job_io import Job, run_job
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process


class Samples(CalibrationDataReader):
    def __init__(self, job: Job) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = job.feeds()

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantize(job: Job) -> list[str]:
    settings = job.settings
    if settings.get("defaults"):
        quantize_static(str(job.fp32), str(job.model), Samples(job))
        return []
    source = job.folder / "preprocessed.onnx"
    notes = []
    try:
        quant_pre_process(str(job.fp32), str(source))
    except Exception as error:  # symbolic shape inference does not know every graph
        quant_pre_process(str(job.fp32), str(source), skip_symbolic_shape=True)
        notes.append(f"quant_pre_process without symbolic shapes: {type(error).__name__}")
    quantize_static(
        str(source), str(job.model), Samples(job),
        quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=False,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[settings["calibrate"]],
        extra_options=settings.get("extra_options") or {},
    )  # fmt: skip
    return notes


if __name__ == "__main__":
    run_job(quantize)
