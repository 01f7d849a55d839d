"""AIMET's ONNX quantization simulation, calibrated, written as Q/DQ with integer weights."""

from __future__ import annotations

from pathlib import Path

import aimet_onnx
import onnx
from job_io import Job, run_job

_PER_CHANNEL = Path(aimet_onnx.__file__).parent / "common/quantsim_config/default_config_per_channel.json"


def quantize(job: Job) -> None:
    simulated = aimet_onnx.QuantizationSimModel(onnx.load(str(job.fp32)), config_file=str(_PER_CHANNEL))
    simulated.compute_encodings(job.feeds())
    written = simulated.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True)
    onnx.save(written, str(job.model))


if __name__ == "__main__":
    run_job(quantize)
