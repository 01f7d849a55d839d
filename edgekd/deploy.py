"""The trained student as one checked file per device, measured beside its fp32 baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd import __version__
from edgekd.baselines import Baselines, baseline_facts
from edgekd.data.source import Dataset, Progress
from edgekd.deploy_blocks import require_runtime, weight_only_facts, weight_only_stage
from edgekd.deploy_checks import parity_facts, quantization_facts, sparsity_facts
from edgekd.deploy_exchange import offer_exchange
from edgekd.deploy_measure import measure_deployed
from edgekd.device import DeviceSpec, check_operators, check_opset
from edgekd.errors import RecipeError, fault
from edgekd.evaluation import onnx_logits, score
from edgekd.export.bundle import write_bundle
from edgekd.export.trace import OPSET_MAX, OPSET_MIN_INT8
from edgekd.export.write import export_float, export_quantized, export_weight_only
from edgekd.models.loaded import LoadedModel
from edgekd.profiles import read_summary
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.schemes import get_scheme
from edgekd.recipe import Recipe
from edgekd.report.schema_deployed import DeployFacts
from edgekd.variant_times import clock_for
from edgekd.variants import INT8, Variant, explain, fastest


def plan_opset(recipe: Recipe, spec: DeviceSpec) -> int:
    """The opset of the file for ``spec``; asked before any training.

    Raises:
        DeviceError: the device's runtime cannot load it, or lacks an operator that it will hold.
        RecipeError: it cannot be written.
    """
    opset = recipe.export.opset or spec.opset_export
    check_opset(spec, opset)
    require_runtime(recipe, spec)
    if not OPSET_MIN_INT8 <= opset <= OPSET_MAX:
        raise RecipeError(
            fault("export.opset", "cannot be written", got=opset, allowed=f"{OPSET_MIN_INT8} to {OPSET_MAX}")
        )
    return opset


def deploy(
    model: nn.Module,
    spec: DeviceSpec,
    folder: Path,
    *,
    recipe: Recipe,
    data: Dataset,
    student: LoadedModel,
    classes: Sequence[str],
    teacher_logits: np.ndarray | None,
    baselines: Baselines,
    out: Path,
    progress: Progress | None,
) -> DeployFacts:
    """Export for ``spec``, read the file back, evaluate it on the test split, measure it where possible.

    Raises:
        ExportError: a guarantee does not hold in the written file: pattern, integer kernels, parity.
        DeviceError: the device's runtime cannot load the opset, or lacks an operator.
    """
    model = model.cpu().eval()
    preprocess = student.preprocess
    example = torch.from_numpy(preprocess.example(2))
    opset = plan_opset(recipe, spec)
    warnings: list[str] = []
    reference: nn.Module = model
    blocks = weight_only_stage(recipe)
    path = folder / "model.onnx"
    metadata = {"preprocess": preprocess.model_dump_json(), "recipe": recipe.name}
    if isinstance(model, QuantizedModel):
        reference = model if model.scheme.name == spec.scheme else model.with_scheme(get_scheme(spec.scheme))
        file = export_quantized(
            reference, example, path, opset=opset, metadata=metadata, kernels=spec.kernel_rule
        )
    elif blocks is not None:
        metadata["quantization"] = blocks.scheme
        file = export_weight_only(
            model, example, path, opset=opset, products=blocks.products, metadata=metadata
        )
    else:
        file = export_float(model, example, path, opset=opset, metadata=metadata)
    check_opset(spec, file.opset)
    check_operators(spec, read_summary(path).operators)
    if blocks is not None:
        quantization: dict[str, Any] | None = weight_only_facts(model, path, blocks, spec, warnings)
    else:
        quantization = quantization_facts(reference, path, recipe, spec, warnings)
    rows: list[dict[str, Any]] = []
    if isinstance(reference, QuantizedModel) and recipe.export.choose == "fastest" and (
        clock := clock_for(spec, recipe.profile, path, progress)
    ):  # fmt: skip
        trained = Variant(INT8, reference, file)
        chosen, rows = fastest(trained, example, folder, clock=clock, recipe=recipe, data=data,
                               preprocess=preprocess, opset=opset, metadata=metadata, kernels=spec.kernel_rule,
                               progress=progress)  # fmt: skip
        if chosen is not trained:
            reference, file = chosen.model, chosen.file
            warnings.append(explain(chosen, rows))
            quantization = quantization_facts(reference, path, recipe, spec, warnings, gate=False)
    warnings += file.notes
    sparsity = sparsity_facts(model, path, recipe, spec, warnings)
    agreement = parity_facts(reference, path, data, recipe, student, progress)
    logits = onnx_logits(path, data.test, preprocess, what=f"evaluate {spec.name}", progress=progress)
    metrics = score(logits, data.test, teacher_logits)
    scheme = spec.scheme if isinstance(reference, QuantizedModel) else blocks.scheme if blocks else "fp32"
    write_bundle(
        folder, model_file=path, classes=list(classes), preprocess=preprocess, device=spec,
        several=data.test.targets is not None, pairs=data.test.pairs,
        facts={"edgekd": __version__, "recipe": recipe.name, "top1": metrics.get("top1"),
               "f1_micro": metrics.get("f1_micro"), "scheme": scheme, "pattern": sparsity and sparsity["pattern"]},
    )  # fmt: skip
    entry: dict[str, Any] = {
        "device": spec.name, "device_title": spec.title, "runtime": spec.runtime, "metrics": metrics,
        "file": str(path.relative_to(out)), "sha256": file.sha256, "size_bytes": file.size_bytes,
        "compressed_bytes": file.compressed_bytes, "parity": agreement, "sparsity": sparsity,
        "quantization": quantization, "variants": rows, "opset": file.opset, "warnings": warnings,
        "baseline": baseline_facts(baselines, out),
    }  # fmt: skip
    measure_deployed(entry, path, baselines, recipe, spec, progress)
    if isinstance(model, QuantizedModel):
        offer_exchange(entry, path, model, example, recipe=recipe, spec=spec, data=data, preprocess=preprocess,
                       metadata=metadata, progress=progress)  # fmt: skip
    return DeployFacts.model_validate(entry)
