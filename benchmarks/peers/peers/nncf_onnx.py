"""NNCF post-training quantization of the ONNX file, run in ONNX Runtime."""

from __future__ import annotations

import nncf
import onnx
from job_io import Job, run_job


def quantize(job: Job) -> None:
    model = onnx.load(str(job.fp32))
    quantized = nncf.quantize(
        model, nncf.Dataset(list(job.feeds())), subset_size=len(job.calibration), model_type=model_type(model)
    )
    onnx.save(quantized, str(job.model))


def model_type(model: onnx.ModelProto) -> nncf.ModelType | None:
    """NNCF has settings of its own for transformers, and asks its user which model is one."""
    attention = any(node.op_type == "Softmax" for node in model.graph.node)
    return nncf.ModelType.TRANSFORMER if attention else None


if __name__ == "__main__":
    run_job(quantize)
