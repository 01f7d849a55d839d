"""fasterai's own ONNX export with static quantization (ONNX Runtime's quantizer with fasterai's settings)."""

from __future__ import annotations

import shutil

from fasterai.export.onnx_exporter import export_onnx
from job_io import Job, run_job
from torch_model import load_model, samples


def quantize(job: Job) -> list[str]:
    inputs = samples(job)
    written = export_onnx(
        load_model(job), inputs[0], job.folder / "fasterai.onnx", opset_version=job.opset, quantize=True,
        quantize_mode="static", calibration_data=inputs, input_names=[job.input_name],
    )  # fmt: skip
    shutil.copyfile(written, job.model)
    return ["the batch is fixed at 1"]


if __name__ == "__main__":
    run_job(quantize)
