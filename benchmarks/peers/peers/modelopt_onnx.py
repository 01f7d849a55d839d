"""NVIDIA ModelOpt: int8 ONNX post-training quantization, with its 2:4 sparsity before it where asked for.

Its files are meant for TensorRT; here they run in ONNX Runtime like everyone's.
"""

from __future__ import annotations

from pathlib import Path

from job_io import Job, run_job
from modelopt.onnx.quantization import quantize as quantize_onnx


def quantize(job: Job) -> list[str]:
    source, notes = job.fp32, ["meant for TensorRT, run in ONNX Runtime"]
    if job.settings.get("sparse"):
        source = _sparse(job)
        notes.append("pruned by magnitude without training: its accuracy is before any recovery")
    quantize_onnx(
        str(source), quantize_mode="int8", calibration_data=job.calibration, calibration_eps=["cpu"],
        calibration_method=job.settings.get("calibrate"), high_precision_dtype="fp32",
        output_path=str(job.model), log_level="WARNING",
    )  # fmt: skip
    return notes


def _sparse(job: Job) -> Path:
    import modelopt.torch.sparsity as mts
    import torch
    from torch_model import load_model, samples

    model = load_model(job)
    example = samples(job)[0]
    sparse = mts.export(mts.sparsify(model, "sparse_magnitude"))
    path = job.folder / "sparse.onnx"
    torch.onnx.export(
        sparse, (example,), str(path), dynamo=False, opset_version=job.opset, input_names=[job.input_name],
        output_names=["output"], dynamic_axes={job.input_name: {0: "batch"}, "output": {0: "batch"}},
    )  # fmt: skip
    return path


if __name__ == "__main__":
    run_job(quantize)
