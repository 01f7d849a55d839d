"""One trained module to one ONNX file, checked before it gets its final name.

``export_float`` writes the fp32 baseline at its best (batch norm folded); ``export_quantized`` writes the
integers and scales that were trained. Both read back what they wrote: opset, checker, strict shape
inference, dynamic batch, nothing unused in the file.
"""

from __future__ import annotations

import copy
import lzma
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from torch import Tensor, nn

import edgekd
from edgekd.artifact import atomic_path, sha256_file
from edgekd.errors import ExportError, fault
from edgekd.export import qdq
from edgekd.export.align import MULTIPLES, align_channels
from edgekd.export.biases import fit_biases, quantize_biases
from edgekd.export.compact import strip_batch_norms, tidy
from edgekd.export.constants import fold_constants
from edgekd.export.depthwise import widen_depthwise
from edgekd.export.gates import add_hard_sigmoids, tile_gates
from edgekd.export.gemm import linears_to_gemm
from edgekd.export.masks import deepen_masks
from edgekd.export.noops import drop_noops
from edgekd.export.pads import absorb_pads
from edgekd.export.quantized import frozen_for_export
from edgekd.export.scales import absorb_channel_factors
from edgekd.export.shapes import fix_reshapes
from edgekd.export.tables import look_up_integers
from edgekd.export.trace import INPUT_NAME, OUTPUT_NAME, TEXT_INPUT_NAME, opset_of, trace_to_onnx
from edgekd.models.bake import bake_parametrizations
from edgekd.models.fold import fold_batch_norms
from edgekd.quant.qat import QuantizedModel

_MAX_BYTES = 2**31 - 1  # protobuf's own limit on one message


@dataclass(frozen=True)
class ExportedFile:
    """A file on disk, checked.

    Attributes:
        notes: what a reader of the report should know about the graph, one sentence each.
    """

    path: Path
    opset: int
    sha256: str
    size_bytes: int
    notes: tuple[str, ...] = ()

    @cached_property
    def compressed_bytes(self) -> int:
        """The file's size under xz, read when first asked for: large float files take seconds."""
        return compressed_size(self.path)

    def to_json(self) -> dict[str, Any]:
        own = {**asdict(self), "compressed_bytes": self.compressed_bytes}
        return {**own, "path": self.path.name, "notes": list(self.notes)}


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
        _finish(proto, temporary, path, opset=opset, wrapper="", metadata=metadata, notes=notes)
    return _described(path, opset, notes)


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
    with atomic_path(path) as temporary:
        proto = trace_to_onnx(frozen_for_export(model), _pair(example), temporary, opset=opset)
        fold_constants(proto)
        fix_reshapes(proto)
        drop_noops(proto)
        deepen_masks(proto)
        qdq.store_integer_weights(proto)
        qdq.pool_spatial_means(proto)
        qdq.absorb_clips(proto)
        add_hard_sigmoids(proto)
        absorb_pads(proto)
        if model.scheme.quantize_bias:
            widen_depthwise(proto)
            look_up_integers(proto)
            align_channels(proto, MULTIPLES[kernels])
            tile_gates(proto)
            linears_to_gemm(proto)
        absorb_channel_factors(proto)
        changed, refused = fit_biases(proto)
        notes += refused
        if changed:
            notes.append(
                f"nearly dead channels in {changed} layers got a larger weight scale, for an int32 bias"
            )
        if model.scheme.quantize_bias:
            quantize_biases(proto)
        metadata = {"quantization": model.scheme.name, **(metadata or {})}
        _finish(proto, temporary, path, opset=opset, wrapper="model", metadata=metadata, notes=notes)
    return _described(path, opset, notes)


def _pair(example: Tensor) -> Tensor:
    """Two samples on the CPU: a batch of one would be traced as a constant."""
    one = example[:1].detach().cpu()
    one = one.float() if one.is_floating_point() else one
    return one.repeat(2, *[1] * (example.ndim - 1))


def _finish(
    proto: onnx.ModelProto,
    temporary: Path,
    path: Path,
    *,
    opset: int,
    wrapper: str,
    metadata: Mapping[str, str] | None,
    notes: list[str],
) -> None:
    lone = strip_batch_norms(proto)
    if lone:
        notes.append(
            f"{lone} batch norms had no layer before them and became a multiplication and an addition"
        )
    tidy(proto, wrapper=wrapper)
    proto.producer_name, proto.producer_version = "edgekd", edgekd.__version__
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {"edgekd": edgekd.__version__, **(metadata or {})})
    try:
        data = proto.SerializeToString() if proto.ByteSize() <= _MAX_BYTES else None
    except (ValueError, EncodeError):  # what protobuf raises over its limit differs by version
        data = None
    if data is None or len(data) > _MAX_BYTES:
        raise ExportError(
            fault(str(path), "the model does not fit into one ONNX file", allowed="less than 2 GB")
        )
    temporary.write_bytes(data)
    _check(onnx.load(str(temporary)), path, opset)


def _check(proto: onnx.ModelProto, path: Path, opset: int) -> None:
    """Everything that must be true of any file edgekd writes, read from the file itself."""

    def refuse(what: str, **details: Any) -> None:
        raise ExportError(fault(str(path), what, **details))

    if opset_of(proto) != opset:
        refuse("the file has another opset than asked for", got=opset_of(proto), allowed=str(opset))
    try:
        onnx.checker.check_model(proto, full_check=True)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        refuse(f"the ONNX checker refuses the file: {str(error).splitlines()[0][:200]}")
    graph = proto.graph
    inputs, outputs = [v.name for v in graph.input], [v.name for v in graph.output]
    if inputs not in ([INPUT_NAME], [TEXT_INPUT_NAME]) or outputs != [OUTPUT_NAME]:
        refuse("the graph has other inputs or outputs than one each", got=[*inputs, *outputs])
    for value in (graph.input[0], graph.output[0]):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            refuse(f"the batch of {value.name!r} is not dynamic", fix="does forward() read the batch size?")
    if inputs == [TEXT_INPUT_NAME] and not graph.input[0].type.tensor_type.shape.dim[1].dim_param:
        refuse("the sequence length is not dynamic", fix="does forward() read the sequence length?")
    graph.output[0].type.tensor_type.ClearField("shape")  # the exporter's promise; now see what the nodes say
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output[0].type.tensor_type
    if inferred.HasField("shape") and inferred.shape.dim and inferred.shape.dim[0].dim_value:
        fixed = inferred.shape.dim[0].dim_value
        refuse(f"the batch is fixed at {fixed} inside the graph", fix="does forward() write a batch size?")
    foreign = sorted({node.domain for node in graph.node} - {"", "ai.onnx"})
    if foreign:
        refuse("nodes of a domain that no runtime knows", got=foreign)
    if any(node.op_type == "BatchNormalization" for node in graph.node):
        refuse("a batch norm is left in the graph")
    read = {name for node in graph.node for name in node.input} | set(outputs)
    unused = [tensor.name for tensor in graph.initializer if tensor.name not in read]
    if unused:
        refuse("an initialiser that nothing reads", got=unused[0])


def _described(path: Path, opset: int, notes: list[str]) -> ExportedFile:
    return ExportedFile(path, opset, sha256_file(path), path.stat().st_size, tuple(notes))


def compressed_size(path: Path) -> int:
    """Bytes of the file under xz (fastest preset, so that large float files take seconds)."""
    compressor, total = lzma.LZMACompressor(preset=1), 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total += len(compressor.compress(block))
    return total + len(compressor.flush())
