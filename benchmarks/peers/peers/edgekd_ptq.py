"""edgekd itself, by the functions that ``edgekd compress`` calls: post-training quantization, then the fastest file.

The settings are those of the recipe ``ptq-smooth`` without its target: with random weights no target means anything,
and labels there are none. What goes out is chosen as ``deploy`` chooses it: integers, a mix or float, by measuring.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from accelerate import Accelerator
from job_io import Job, run_job
from torch_model import load_model

from edgekd.data.arrays import ArraySource
from edgekd.data.source import Dataset, Split
from edgekd.export.write import export_quantized
from edgekd.preprocess import Preprocess
from edgekd.profiles import measure
from edgekd.quant.qat import QuantizedModel
from edgekd.recipe_stages import PtqStage
from edgekd.stages.base import StageContext
from edgekd.stages.ptq import PostTrainingQuantize
from edgekd.variants import INT8, Variant, choose, explain, variant_rows, write_variants


def quantize(job: Job) -> list[str]:
    context = stage_context(job)
    stage = PostTrainingQuantize(
        PtqStage(ranges="auto", smooth="auto", calibration_samples=len(job.calibration))
    )
    model = load_model(job)
    stage.requires(model, context)
    outcome = stage.apply(model, context)
    assert isinstance(outcome.model, QuantizedModel)
    example = context.example
    file = export_quantized(outcome.model, example, job.model, opset=job.opset)
    variants = write_variants(
        Variant(INT8, outcome.model, file), example, job.folder, opset=job.opset, metadata={}, threads=1
    )
    paths = {variant.name: variant.file.path for variant in variants}
    measured = measure(paths, threads=1, rounds=5, runs=20, warmup=5)
    unknown = dict.fromkeys(paths)
    chosen = choose(variants, measured, unknown)
    notes = [*outcome.notes, *chosen.file.notes]
    if chosen is not variants[0]:
        notes.insert(0, explain(chosen, variant_rows(variants, measured, unknown, chosen)))
        chosen.file.path.replace(job.model)
    for variant in variants[1:]:
        variant.file.path.unlink(missing_ok=True)
    return notes


def stage_context(job: Job) -> StageContext:
    """The calibration set as edgekd's own data: the very pixels that the job's samples were made of."""
    facts = json.loads((job.folder / "job.json").read_text(encoding="utf-8"))
    preprocess = Preprocess.model_validate({**facts["preprocess"], "crop_pct": 1.0})
    mean, std = (np.asarray(value, np.float32)[:, None, None] for value in (preprocess.mean, preprocess.std))
    pixels = np.rint((job.calibration * std + mean) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    if preprocess.channels == 1:
        pixels = pixels[..., 0]
    assert np.allclose(preprocess.normalise(pixels), job.calibration, atol=1e-5), "not the job's samples"
    source = ArraySource("calibration", pixels, np.full(len(pixels), -1), ())
    train = Split("train", source, np.arange(len(pixels)))
    data = Dataset("calibration", (), train, train, train, "", [], {})
    return StageContext(
        name="quantize", folder=job.folder, cache_folder=job.folder, data=data, preprocess=preprocess, teacher=None,
        classes=0, seed=0, scheme=job.settings.get("scheme", "u8s8"), accelerator=Accelerator(cpu=True),
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_job(quantize)
