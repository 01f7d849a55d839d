"""onnx-neural-compressor, the ONNX half that left neural-compressor: static int8 with Q/DQ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from job_io import Job, run_job
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import QuantFormat, QuantType, config
from onnx_neural_compressor.quantization import quantize as quantize_onnx


class Samples(data_reader.CalibrationDataReader):
    def __init__(self, job: Job) -> None:
        self._job = job
        self.rewind()

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)

    def rewind(self) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = self._job.feeds()


def quantize(job: Job) -> None:
    settings = config.StaticQuantConfig(
        calibration_data_reader=Samples(job), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    quantize_onnx(str(job.fp32), str(job.model), settings)


if __name__ == "__main__":
    run_job(quantize)
