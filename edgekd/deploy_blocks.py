"""Weight-only files: which runtimes take them, and what one holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from edgekd.device import DeviceSpec
from edgekd.errors import DeviceError, fault
from edgekd.export.coverage import check_coverage
from edgekd.quant.weight_blocks import Blocks, weight_blocks
from edgekd.recipe import Recipe
from edgekd.recipe_stages import WeightOnlyStage

# ONNX Runtime's operator MatMulNBits on the CPU: 4 bits since 1.17 (intel/neural-compressor#1327), 8 bits with
# kernels of their own since 1.22 (microsoft/onnxruntime#24491).
_SINCE = {4: (1, 17), 8: (1, 22)}


def weight_only_stage(recipe: Recipe) -> WeightOnlyStage | None:
    return next((stage for stage in recipe.stages if isinstance(stage, WeightOnlyStage)), None)


def require_runtime(recipe: Recipe, spec: DeviceSpec) -> None:
    """Asked before anything runs.

    Raises:
        DeviceError: the recipe wants weights in blocks, and the device's runtime has no such product.
    """
    stage = weight_only_stage(recipe)
    if stage is None:
        return
    what = f"its runtime has no product with {stage.bits}-bit weights in blocks (quantize: weight-only)"
    where, fix = f"device {spec.name}", "method: ptq, or another device"
    if spec.runtime != "onnxruntime":
        raise DeviceError(fault(where, what, got=spec.runtime, allowed="onnxruntime", fix=fix))
    since = _SINCE[stage.bits]
    if tuple(int(part) for part in spec.runtime_version.split(".")[:2]) < since:
        allowed = f"ONNX Runtime {'.'.join(map(str, since))} or newer"
        fix = "bits: 4, or method: ptq" if stage.bits == 8 else fix
        raise DeviceError(fault(where, what, got=spec.runtime_version, allowed=allowed, fix=fix))


def weight_only_facts(
    model: nn.Module, path: Path, stage: WeightOnlyStage, spec: DeviceSpec, warnings: list[str]
) -> dict[str, Any]:
    """The entry ``quantization`` of the report, and what a reader should know beside it."""
    blocks = weight_blocks(model)
    report = check_coverage(path, spec.kernel_rule)
    before = sum(4 * each.integers.numel() for each in blocks.values())
    after = sum(map(stored_bytes, blocks.values()))
    warnings.append(
        f"weight-only: the weights of {len(blocks)} linear layers take {after / 1e6:.2f} MB instead of "
        f"{before / 1e6:.2f} MB; that saves bytes, and time only where few rows meet many weights"
    )
    return {
        "scheme": stage.scheme, "integer_ops": report.integer_ops, "float_ops": report.float_ops,
        "coverage": report.coverage, "rule": report.rule, "float_nodes": report.float_nodes,
        "float_products": report.float_products, "mac_coverage": report.mac_coverage,
        "weight_bytes": after, "weight_bytes_fp32": before, "rules": {report.rule: asdict(report)},
    }  # fmt: skip


def stored_bytes(blocks: Blocks) -> int:
    """Of the packed integers, a float32 scale a block, and the zero points where one is needed."""
    out = len(blocks.integers)
    count = blocks.scale.shape[1]
    zeros = bool((blocks.zero != 2 ** (blocks.bits - 1)).any())
    packed = out * count * blocks.size * blocks.bits // 8
    return packed + 4 * out * count + (out * -(-count * blocks.bits // 8) if zeros else 0)
