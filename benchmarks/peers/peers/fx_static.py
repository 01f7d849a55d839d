"""torch.ao FX graph mode with the QAT placement, observers set from the calibration set, legacy export to Q/DQ.

The fake-quantized graph is exported (``convert_fx`` makes operators that no exporter knows), with per-tensor
fake-quant of weights replaced where per-channel export fails.
"""

from __future__ import annotations

import torch
from job_io import Job, run_job
from torch.ao import quantization as ao
from torch.ao.quantization import quantize_fx
from torch_model import load_model, samples


def quantize(job: Job) -> list[str]:
    model = load_model(job)
    inputs = samples(job)
    weight = ao.FusedMovingAvgObsFakeQuantize.with_args(
        observer=ao.MovingAveragePerChannelMinMaxObserver, quant_min=-127, quant_max=127, dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
    )  # fmt: skip
    activation = ao.FusedMovingAvgObsFakeQuantize.with_args(
        observer=ao.MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8
    )
    mapping = ao.QConfigMapping().set_global(ao.QConfig(activation=activation, weight=weight))
    prepared = quantize_fx.prepare_qat_fx(model.train(), mapping, (inputs[0],)).eval()
    prepared.apply(ao.enable_observer).apply(ao.disable_fake_quant)
    with torch.no_grad():
        for sample in inputs:
            prepared(sample)
    prepared.apply(ao.disable_observer).apply(ao.enable_fake_quant)
    converted = quantize_fx.convert_fx(prepared)
    torch.onnx.export(
        converted, (inputs[0],), str(job.model), dynamo=False, opset_version=job.opset,
        input_names=["input"], output_names=["output"], dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    )  # fmt: skip
    return []


if __name__ == "__main__":
    run_job(quantize)
