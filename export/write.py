"""One trained module to one ONNX file, checked before it gets its final name.

``export_float`` writes the fp32 baseline at its best (batch norm folded); ``export_quantized`` writes the
integers and scales that were trained; ``export_weight_only`` linear layers with weights in blocks. All read
back what they wrote: opset, checker, strict shape inference, dynamic batch, nothing unused in the file.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from edgekd.artifact import atomic_path
from edgekd.export import qdq
from edgekd.export.align import MULTIPLES, align_channels
from edgekd.export.biases import fit_biases, quantize_biases
from edgekd.export.constants import fold_constants
from edgekd.export.depthwise import widen_depthwise
from edgekd.export.finish import ExportedFile, compressed_size, describe, finish
from edgekd.export.gates import add_hard_sigmoids, tile_gates
from edgekd.export.gelus import gelus_to_bytes
from edgekd.export.gemm import linears_to_gemm
from edgekd.export.hardswish import hard_sigmoids_into_convolutions, hardswishes_to_bytes
from edgekd.export.masks import deepen_masks
from edgekd.export.nbits import Products, linears_to_nbits
from edgekd.export.noops import drop_noops
from edgekd.export.pads import absorb_pads
from edgekd.export.pointwise import gemms_to_convolutions, round_before_reshape
from edgekd.export.quantized import frozen_for_export, write_scales
from edgekd.export.scales import absorb_channel_factors
from edgekd.export.shapes import fix_reshapes
from edgekd.export.tables import look_up_integers
from edgekd.export.trace import trace_to_onnx
from edgekd.models.bake import bake_parametrizations
from edgekd.models.fold import fold_batch_norms
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.weight_blocks import weight_blocks


def export_float(
    module: nn.Module,
    example: Tensor,
    path: Path,
    *,
    opset: int,
    metadata: Mapping[str, str] | None = None,
) -> ExportedFile:
    """Write ``module`` in float32, parametrizations baked and batch norms folded on a copy.

    Args:
        example: ``(batch, channels, height, width)``, or token ids int64 ``(batch, sequence)``; only its
            shape per sample matters.
        metadata: stored in the file's ``metadata_props``.

    Raises:
        ExportError: cannot be exported, or the file fails a check. Nothing is left at ``path``.
        OutputError: ``path`` cannot be written.
    """
    plain = copy.deepcopy(module).cpu().eval()
    example = _pair(example)
    fold_batch_norms(plain, example)
    bake_parametrizations(plain)
    notes: list[str] = []
    with atomic_path(path) as temporary:
        proto = trace_to_onnx(plain, example, temporary, opset=opset)
        fold_constants(proto)
        fix_reshapes(proto)
        drop_noops(proto)
        deepen_masks(proto)
        qdq.pool_spatial_means(proto)
        absorb_pads(proto)
        widen_depthwise(proto)
        linears_to_gemm(proto)
        absorb_channel_factors(proto)
        finish(proto, temporary, path, opset=opset, wrapper="", metadata=metadata, notes=notes)
    return describe(path, opset, notes)


def export_quantized(
    model: QuantizedModel,
    example: Tensor,
    path: Path,
    *,
    opset: int,
    metadata: Mapping[str, str] | None = None,
    kernels: Literal["x86", "arm"] = "x86",
) -> ExportedFile:
    """Write the trained integers with Q/DQ in the layout of ``model.scheme``'s runtime.

    Other args and Raises: as :func:`export_float`.

    Args:
        kernels: whose convolutions the channels are padded for.
    """
    notes = [f"{name} stays float: {reason}" for name, reason in model.float_layers.items()]
    example = _pair(example)
    frozen, apart = frozen_for_export(model, example)
    if apart:
        notes.append(f"Arm may round {len(apart)} additions otherwise than x86: {apart[0]}")
    with atomic_path(path) as temporary:
        proto = trace_to_onnx(frozen, example, temporary, opset=opset)
        fold_constants(proto)
        fix_reshapes(proto)
        drop_noops(proto)
        deepen_masks(proto)
        qdq.store_integer_weights(proto)
        qdq.pool_spatial_means(proto)
        qdq.absorb_clips(proto)
        hardswishes_to_bytes(proto)
        hard_sigmoids_into_convolutions(proto)
        add_hard_sigmoids(proto)
        gelus = gelus_to_bytes(proto)
        if gelus:
            each = "GELU is a table" if gelus == 1 else "GELUs are a table each"
            notes.append(f"{gelus} {each} of bytes and a product, at most 0.0103 from the float function")
        absorb_pads(proto)
        if model.scheme.quantize_bias:
            widen_depthwise(proto)
            look_up_integers(proto)
            align_channels(proto, MULTIPLES[kernels])
            tile_gates(proto)
            linears_to_gemm(proto)
        absorb_channel_factors(proto)
        round_before_reshape(proto)
        if kernels == "x86" and model.scheme.quantize_bias:
            gemms_to_convolutions(proto)
        changed, refused = fit_biases(proto)
        notes += refused
        if changed:
            notes.append(
                f"nearly dead channels in {changed} layers got a larger weight scale, for an int32 bias"
            )
        if model.scheme.quantize_bias:
            quantize_biases(proto)
        metadata = {"quantization": model.scheme.name, **(metadata or {})}
        finish(proto, temporary, path, opset=opset, wrapper="model", metadata=metadata, notes=notes)
    return describe(path, opset, notes)


def export_weight_only(
    model: nn.Module,
    example: Tensor,
    path: Path,
    *,
    opset: int,
    products: Products = "int8",
    metadata: Mapping[str, str] | None = None,
) -> ExportedFile:
    """Write ``model``, whose linear weights :func:`edgekd.quant.weight_only.quantize_weights` put into blocks.

    Other args and Raises: as :func:`export_float`.

    Args:
        products: ``int8``: the runtime rounds what a layer reads to 8 bits, block by block, when it runs.
    """
    plain = copy.deepcopy(model).cpu().eval()
    blocks = weight_blocks(plain)
    write_scales(plain)
    values = {name: plain.get_submodule(name).weight.detach().numpy() for name in blocks}  # type: ignore[operator]
    notes: list[str] = []
    with atomic_path(path) as temporary:
        proto = trace_to_onnx(plain, _pair(example), temporary, opset=opset)
        fold_constants(proto)
        fix_reshapes(proto)
        drop_noops(proto)
        deepen_masks(proto)
        qdq.store_integer_weights(proto)
        look_up_integers(proto)
        qdq.pool_spatial_means(proto)
        absorb_pads(proto)
        widen_depthwise(proto)
        linears_to_nbits(proto, values, blocks, products)
        linears_to_gemm(proto)
        absorb_channel_factors(proto)
        finish(proto, temporary, path, opset=opset, wrapper="", metadata=metadata, notes=notes)
    return describe(path, opset, notes)


def _pair(example: Tensor) -> Tensor:
    """Two samples on the CPU: a batch of one would be traced as a constant."""
    one = example[:1].detach().cpu()
    one = one.float() if one.is_floating_point() else one
    return one.repeat(2, *[1] * (example.ndim - 1))


__all__ = ["ExportedFile", "compressed_size", "export_float", "export_quantized", "export_weight_only"]
