"""ONNX Runtime ``quantize_dynamic``: int8 weights, ranges of activations found while running."""

from __future__ import annotations

from job_io import Job, run_job
from onnxruntime.quantization import QuantType, quantize_dynamic


def quantize(job: Job) -> None:
    quantize_dynamic(
        str(job.fp32), str(job.model), per_channel=True, weight_type=QuantType.QInt8,
        op_types_to_quantize=job.settings.get("operators"),
    )  # fmt: skip


if __name__ == "__main__":
    run_job(quantize)
