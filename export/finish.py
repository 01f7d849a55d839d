"""The last step of every export: a tidy file, read back and checked, described by what was read."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

import edgekd
from edgekd.artifact import sha256_file
from edgekd.errors import ExportError, fault
from edgekd.export.compact import strip_batch_norms, tidy
from edgekd.export.moves import join_moves
from edgekd.export.nbits import DOMAIN
from edgekd.export.samples import CONSTANT_LAYERS, fold_samples
from edgekd.export.trace import INPUT_NAME, OUTPUT_NAME, TEXT_INPUT_NAME, opset_of
from edgekd.export.unbind import unbind_before_moving
from edgekd.export.views import join_views

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


def finish(
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
    constant = fold_samples(proto)
    notes += [f"{layer} is not in the file: what it reads is the same for every sample" for layer in constant]
    unbind_before_moving(proto)
    join_moves(proto)
    join_views(proto)
    proto.producer_name, proto.producer_version = "edgekd", edgekd.__version__
    del proto.metadata_props[:]
    own = {"edgekd": edgekd.__version__} | ({CONSTANT_LAYERS: json.dumps(constant)} if constant else {})
    onnx.helper.set_model_props(proto, {**own, **(metadata or {})})
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
    foreign = sorted({node.domain for node in graph.node} - {"", "ai.onnx", DOMAIN})
    if foreign:
        refuse("nodes of a domain that no runtime knows", got=foreign)
    if any(node.op_type == "BatchNormalization" for node in graph.node):
        refuse("a batch norm is left in the graph")
    read = {name for node in graph.node for name in node.input} | set(outputs)
    unused = [tensor.name for tensor in graph.initializer if tensor.name not in read]
    if unused:
        refuse("an initialiser that nothing reads", got=unused[0])


def describe(path: Path, opset: int, notes: list[str]) -> ExportedFile:
    return ExportedFile(path, opset, sha256_file(path), path.stat().st_size, tuple(notes))


def compressed_size(path: Path) -> int:
    """Bytes of the file under xz (preset 0: on weights as small as 1, in two thirds of the time)."""
    compressor, total = lzma.LZMACompressor(preset=0), 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total += len(compressor.compress(block))
    return total + len(compressor.flush())
