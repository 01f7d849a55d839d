"""What the written file must keep, read from the file: the N:M pattern, integer kernels, parity."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.data.source import Dataset, Progress, Split
from edgekd.device import DeviceSpec
from edgekd.errors import ExportError, fault
from edgekd.evaluation import onnx_logits, torch_logits
from edgekd.export.coverage import check_coverage, require_coverage
from edgekd.export.explicit import check_explicit
from edgekd.export.parity import parity, require_parity
from edgekd.export.sparsity import check_sparsity
from edgekd.models.loaded import LoadedModel
from edgekd.prune.apply import masked_layers
from edgekd.prune.eligibility import find_eligible
from edgekd.prune.pattern import Pattern
from edgekd.quant.exact import ExactTwin
from edgekd.quant.qat import QuantizedModel
from edgekd.recipe import Recipe
from edgekd.recipe_stages import PruneStage
from edgekd.train import network


def sparsity_facts(
    model: nn.Module, path: Path, recipe: Recipe, spec: DeviceSpec, warnings: list[str]
) -> dict[str, Any] | None:
    stage = next((stage for stage in recipe.stages if isinstance(stage, PruneStage)), None)
    if stage is None:
        return None
    found = check_sparsity(path, stage.pattern, layers=list(masked_layers(network(model))))
    if found.violations:
        raise ExportError(
            fault(
                str(path),
                f"{stage.pattern} does not hold in the written integers",
                got=f"{found.violations} groups",
            )
        )
    if not spec.sparse_2to4:
        warnings.append(
            f"{spec.title} has no kernels for {stage.pattern} weights: the zeros make the file compress "
            "better, they do not make it faster there"
        )
    facts = asdict(found)
    reasons = find_eligible(network(model), Pattern.parse(stage.pattern), exclude=stage.exclude).skipped
    facts["skipped"] = [{"name": name, "reason": reason} for name, reason in reasons]
    return facts


def quantization_facts(
    model: nn.Module, path: Path, recipe: Recipe, spec: DeviceSpec, warnings: list[str], *, gate: bool = True
) -> dict[str, Any] | None:
    """The kernel-coverage gate, under the device's rule; the other rules are reported beside it.

    Args:
        gate: False for a file that keeps layers in float on purpose.
    """
    if not isinstance(model, QuantizedModel):
        return None
    reports = {rule: check_coverage(path, rule) for rule in ("x86", "arm")}
    report = reports[spec.kernel_rule]
    if spec.runtime == "tensorrt":
        report = reports["explicit"] = check_explicit(path)
        warnings.append(
            "coverage counts the layers that the file asks to run in int8; TensorRT chooses its kernels on the "
            "board: not checked here"
        )
    if gate:
        require_coverage(report, recipe.export.min_coverage, str(path), chosen=model.float_layers)
    if gate and not spec.int8:
        warnings.append(f"{spec.title} has no int8 kernels: the file is smaller there, not faster")
    return {
        "scheme": spec.scheme, "integer_ops": report.integer_ops, "float_ops": report.float_ops,
        "coverage": report.coverage, "rule": report.rule, "float_nodes": report.float_nodes,
        "float_products": report.float_products, "mac_coverage": report.mac_coverage,
        "rules": {rule: asdict(each) for rule, each in reports.items()},
    }  # fmt: skip


def parity_facts(
    reference: nn.Module,
    path: Path,
    data: Dataset,
    recipe: Recipe,
    student: LoadedModel,
    progress: Progress | None,
) -> dict[str, Any]:
    count = min(recipe.export.parity_samples, len(data.test))
    split = Split("parity", data.test.source, data.test.indices[:count])
    told = "trained torch model"
    if isinstance(reference, QuantizedModel):
        told = "trained torch model with fake-quant"
        if reference.scheme.quantize_bias:
            reference = ExactTwin(reference, torch.from_numpy(student.preprocess.example(2)))
            told = "trained torch model in the runtime's integers"
    expected = torch_logits(
        reference, split, student.preprocess, torch.device("cpu"), what="parity, torch", progress=progress
    )
    written = onnx_logits(path, split, student.preprocess, what="parity, ONNX", progress=progress)
    found = parity(expected, written, several=split.targets is not None, reference=told)
    require_parity(found, recipe.export.min_agreement, str(path))
    return asdict(found)
