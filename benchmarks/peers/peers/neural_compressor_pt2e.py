"""neural-compressor 3.x for torch: static int8 (PT2E underneath). It writes no ONNX, so ``torch.onnx`` does."""

from __future__ import annotations

import torch
from job_io import Job, run_job
from torch_model import load_model, samples


def quantize(job: Job) -> list[str]:
    model, inputs = load_model(job), samples(job)  # makes torchvision importable, which transformers needs
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

    example = (inputs[0].repeat(2, 1, 1, 1),)
    batch = torch.export.Dim("batch", min=1, max=1024)
    exported = export(model, example_inputs=example, dynamic_shapes=({0: batch},))
    prepared = prepare(exported, quant_config=StaticQuantConfig())
    with torch.no_grad():
        for sample in inputs:
            prepared(sample)
    program = torch.onnx.export(
        convert(prepared), example, dynamo=True, dynamic_shapes=({0: batch},), input_names=[job.input_name],
        output_names=["output"],
    )  # fmt: skip
    assert program is not None
    program.save(str(job.model), external_data=False)
    return ["exported by torch.onnx: neural-compressor 3 writes no ONNX"]


if __name__ == "__main__":
    run_job(quantize)
