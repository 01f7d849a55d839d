"""Linear layers with weights in blocks of 4 or 8 bits: ONNX Runtime's operator ``MatMulNBits``.

The operator belongs to ONNX Runtime (domain ``com.microsoft``): it takes the weight packed, with a scale and a
zero point a block, and any number of leading dimensions. The same weight as a blocked DequantizeLinear is
standard ONNX from opset 21 on, one above what torch's exporter writes; ONNX Runtime turns it into MatMulNBits
when it loads the file, so it would be no other kernel. For one row of 384 on 1536 outputs the operator takes a
quarter of an fp32 product's time, for 128 rows half as long again (AVX512-VNNI, one thread): it saves bytes,
and time where few rows meet many weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
from onnx import helper

from edgekd.errors import ExportError, fault
from edgekd.export.graph import Graph, drop_unused

if TYPE_CHECKING:
    from edgekd.quant.weight_blocks import Blocks

DOMAIN = "com.microsoft"
OPERATOR = "MatMulNBits"
Products = Literal["int8", "float"]
_ACCURACY = {"float": 1, "int8": 4}  # the operator's accuracy_level: what its products are computed in


def linears_to_nbits(
    proto: onnx.ModelProto, values: Mapping[str, np.ndarray], packed: Mapping[str, Blocks], products: Products
) -> list[str]:
    """``MatMul [-> Add]`` and ``Gemm`` with one of ``values`` as their weight become MatMulNBits.

    The weights are found by their numbers: the exporter's names differ with how a layer is called.

    Args:
        values: by layer the float32 weight ``(out, in)`` that the graph holds.
        packed: the same layers' integers.

    Returns:
        The layers that were written.

    Raises:
        ExportError: a layer is not in the graph as a plain product.
    """
    graph = Graph(proto)
    known = {_key(np.ascontiguousarray(weight)): name for name, weight in values.items()}
    written: dict[str, int] = {}
    for node in graph.nodes("MatMul", "Gemm"):
        weight = graph.constant(node.input[1])
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            continue
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        transposed = attributes.get("transB", 0) == 1
        layer = known.get(_key(np.ascontiguousarray(weight if transposed else weight.T)))
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
        if layer is None or not plain or attributes.get("transA", 0):
            continue
        _replace(graph, node, layer, packed[layer], products)
        written[layer] = written.get(layer, 0) + 1
        graph.refresh()
    missing = [name for name in values if name not in written]
    if missing:
        raise ExportError(
            fault("export", f"the linear layer {missing[0]} is no plain product in the graph",
                  fix=f"exclude: [{missing[0]}]")
        )  # fmt: skip
    drop_unused(proto)
    if written and not any(entry.domain == DOMAIN for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return list(written)


def pack(integers: np.ndarray, bits: int, size: int, fill: np.ndarray) -> np.ndarray:
    """uint8 ``(out, in)`` to ``(out, blocks, size * bits / 8)``, the first of two 4-bit numbers in the low half.

    Args:
        fill: uint8 ``(out,)``: what a short last block is filled with.
    """
    out, width = integers.shape
    blocks = -(-width // size)
    whole = np.repeat(fill[:, None], blocks * size, 1)
    whole[:, :width] = integers
    whole = whole.reshape(out, blocks, size)
    return whole if bits == 8 else _in_pairs(whole)


def pack_zeros(zero: np.ndarray, bits: int) -> np.ndarray:
    """uint8 ``(out, blocks)`` to ``(out, bytes)``, each row filled up to whole bytes."""
    return zero if bits == 8 else _in_pairs(np.pad(zero, ((0, 0), (0, zero.shape[1] % 2))))


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """The last axis as single numbers, those that fill it up included."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:-1], -1)


def stored_integers(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    """The weight of a MatMulNBits as int16 ``(out, in)``, zero points taken off: 0 means 0."""
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    blob = graph.constant(node.input[1])
    zeros = graph.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    assert blob is not None
    bits = attributes.get("bits", 4)
    out, blocks, _ = blob.shape
    zero: np.ndarray | int = 2 ** (bits - 1)
    if zeros is not None:
        zero = unpack(zeros.reshape(out, -1), bits)[:, :blocks, None].astype(np.int16)
    integers = unpack(blob, bits).astype(np.int16) - zero
    return integers.reshape(out, -1)[:, : attributes["K"]]


def _in_pairs(numbers: np.ndarray) -> np.ndarray:
    return numbers[..., ::2] | numbers[..., 1::2] << 4


def _replace(graph: Graph, node: onnx.NodeProto, layer: str, packed: Blocks, products: Products) -> None:
    integers, scale, zero = (each.numpy() for each in (packed.integers, packed.scale, packed.zero))
    out, width = integers.shape
    stem = graph.fresh_stem(f"{layer}.weight", "_packed")
    blob = pack(integers, packed.bits, packed.size, zero[:, -1])
    names = [graph.add_constant(f"{stem}_packed", blob), graph.add_constant(f"{stem}_scale", scale), ""]
    if (zero != 2 ** (packed.bits - 1)).any():  # what the operator takes where it is given none
        names[2] = graph.add_constant(f"{stem}_zero", pack_zeros(zero, packed.bits))
    bias, last = _bias(graph, node)
    names += ["", bias] if bias else []  # between them an index of groups that no CPU kernel reads
    while not names[-1]:
        names.pop()
    product = helper.make_node(
        OPERATOR, [node.input[0], *names], [last.output[0]], name=node.name, domain=DOMAIN,
        K=width, N=out, bits=packed.bits, block_size=packed.size, accuracy_level=_ACCURACY[products],
    )  # fmt: skip
    position = list(graph.graph.node).index(last)
    graph.graph.node.remove(last)
    graph.graph.node.insert(position, product)
    if last is not node:
        graph.graph.node.remove(node)


def _bias(graph: Graph, node: onnx.NodeProto) -> tuple[str, onnx.NodeProto]:
    """The name of the bias, or "", and the node whose output the product takes over."""
    if node.op_type == "Gemm":
        return (node.input[2] if len(node.input) > 2 else ""), node
    add = graph.only_reader(node.output[0], "Add")
    if add is None:
        return "", node
    other = add.input[1] if add.input[0] == node.output[0] else add.input[0]
    value = graph.constant(other)
    width = graph.constant(node.input[1]).shape[1]  # type: ignore[union-attr]
    return (other, add) if value is not None and value.shape == (width,) else ("", node)


def _key(weight: np.ndarray) -> bytes:
    return b"%d %d " % weight.shape + weight.tobytes()
