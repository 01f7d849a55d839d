"""edgekd itself, through its public functions, on the same job as every peer."""

from __future__ import annotations

import torch
from job_io import Job, run_job
from torch_model import load_model, samples

from edgekd.export.write import export_quantized
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import get_scheme


def quantize(job: Job) -> list[str]:
    inputs = samples(job)
    model = prepare_qat(load_model(job), inputs[0], get_scheme(job.settings.get("scheme", "u8s8")))
    model.calibrate(inputs)
    file = export_quantized(model, inputs[0], job.model, opset=job.opset)
    return list(file.notes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_job(quantize)
