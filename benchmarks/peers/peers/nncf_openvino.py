"""NNCF post-training quantization to OpenVINO's format. Another runtime: ``openvino_worker.py`` measures it."""

from __future__ import annotations

import nncf
import onnx
import openvino
from job_io import Job, run_job
from nncf_onnx import model_type


def quantize(job: Job) -> None:
    model = openvino.convert_model(str(job.fp32))
    quantized = nncf.quantize(
        model, nncf.Dataset(list(job.feeds())), subset_size=len(job.calibration),
        model_type=model_type(onnx.load(str(job.fp32))),
    )  # fmt: skip
    openvino.save_model(quantized, job.folder / "model.xml")


if __name__ == "__main__":
    run_job(quantize)
