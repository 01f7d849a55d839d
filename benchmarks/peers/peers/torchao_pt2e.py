"""torchao PT2E with one of its quantizers, post-training, exported by ``torch.onnx`` (dynamo)."""

from __future__ import annotations

import torch
import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
from job_io import Job, run_job
from torch_model import load_model, samples
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def quantize(job: Job) -> None:
    inputs = samples(job)
    example = (inputs[0].repeat(2, 1, 1, 1),)
    batch = torch.export.Dim("batch", min=1, max=1024)
    graph = torch.export.export(load_model(job), example, dynamic_shapes=({0: batch},)).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(graph, quantizer)
    with torch.no_grad():
        for sample in inputs:
            prepared(sample)
    converted = convert_pt2e(prepared)
    program = torch.onnx.export(
        converted, example, dynamo=True, dynamic_shapes=({0: batch},), input_names=["input"],
        output_names=["output"],
    )  # fmt: skip
    assert program is not None
    program.save(str(job.model), external_data=False)


if __name__ == "__main__":
    run_job(quantize)
