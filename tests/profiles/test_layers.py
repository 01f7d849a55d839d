"""From operators of the optimized graph back to nodes and layers: by hand, and through ONNX Runtime itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ModelFileError
from edgekd.profiles import layer_costs, profile_operators
from edgekd.profiles.layers import layer_of, layers_of, origins, with_inserted
from edgekd.profiles.onnx_graph import OnnxNode, read_inputs, read_nodes
from edgekd.profiles.operators import OperatorCost


def node(text: str) -> OnnxNode:
    """``"name Op in1,in2 out"``; an input that begins with ``w`` is a weight."""
    name, op, inputs, outputs = text.split()
    tensors = tuple(inputs.split(","))
    weights = frozenset(tensor for tensor in tensors if tensor.startswith("w"))
    return OnnxNode(name, op, tensors, tuple(outputs.split(",")), constants=weights)


def graph(*texts: str) -> list[OnnxNode]:
    return [node(text) for text in texts]


def names(original: list[OnnxNode], optimized: list[OnnxNode]) -> dict[str, list[str]]:
    return {name: [n.name for n in nodes] for name, nodes in origins(original, optimized).items()}


RESIDUAL = graph(
    "stem/Conv Conv x,w0 c0",
    "stem/Relu Relu c0 r0",
    "block.conv1/Conv Conv r0,w1 c1",
    "block.act/Relu Relu c1 r1",
    "block.conv2/Conv Conv r1,w2 c2",
    "block/Add Add c2,r0 a",
    "block.out/Relu Relu a r2",
    "pool/GlobalAveragePool GlobalAveragePool r2 p",
    "flat/Flatten Flatten p f",
    "head/Gemm Gemm f,w3 y",
)


def test_blocked_layout_with_the_add_fused_into_the_convolution() -> None:
    # As ONNX Runtime names them on x86: its tensors are its own, the name is that of the file's tensor.
    optimized = graph(
        "r0_nchwc Conv x,reorder t0",
        "r1_nchwc Conv t0,w t1",
        "c2_nchwc Conv t1,w,,t0 t2",
        "p_nchwc GlobalAveragePool t2 t3",
        "ReorderOutput ReorderOutput t3 p",
        "flat/Flatten Flatten p f",
        "head/Gemm Gemm f,w3 y",
    )
    found = names(RESIDUAL, optimized)
    assert found == {
        "r0_nchwc": ["stem/Conv", "stem/Relu"],
        "r1_nchwc": ["block.conv1/Conv", "block.act/Relu"],
        "c2_nchwc": ["block.conv2/Conv", "block/Add", "block.out/Relu"],
        "p_nchwc": ["pool/GlobalAveragePool"],
        "ReorderOutput": [],
        "flat/Flatten": ["flat/Flatten"],
        "head/Gemm": ["head/Gemm"],
    }
    layers = with_inserted(optimized, origins(RESIDUAL, optimized))
    assert layers["c2_nchwc"] == ("block.conv2", "block", "block.out")
    # Inserted before the flattening, which reads it.
    assert layers["ReorderOutput"] == ("flat",)


def test_integer_operators_end_where_quantize_stands() -> None:
    original = graph(
        "q0 QuantizeLinear x,ws x8",
        "d0 DequantizeLinear x8,ws xd",
        "dw DequantizeLinear w8,ws wd",
        "conv/Conv Conv xd,wd c",
        "act/Relu Relu c r",
        "q1 QuantizeLinear r,ws r8",
        "d1 DequantizeLinear r8,ws rd",
        "add/Add Add rd,xd a",
        "q2 QuantizeLinear a,ws a8",
        "d2 DequantizeLinear a8,ws y",
    )
    optimized = graph(
        "q0 QuantizeLinear x,ws x8",
        "Transpose Transpose x8 t",
        "conv/Conv_token_2 QLinearConv t,ws,w8 conv/Conv_token_1",
        "add/Add QLinearAdd conv/Conv_token_1,t add/Add_token_7",
        "Transpose_token_9 Transpose add/Add_token_7 a8",
        "d2 DequantizeLinear a8,ws y",
    )
    assert names(original, optimized) == {
        "q0": ["q0"],
        "Transpose": [],
        "conv/Conv_token_2": ["d0", "conv/Conv", "act/Relu", "q1"],
        "add/Add": ["d1", "add/Add", "q2"],
        "Transpose_token_9": [],
        "d2": ["d2"],
    }
    assert with_inserted(optimized, origins(original, optimized))["conv/Conv_token_2"] == ("conv", "act")


def test_a_fused_activation_of_many_nodes_and_shapes_that_are_folded() -> None:
    original = graph(
        "s Shape x shape",
        "g Gather shape,w part",
        "flat/Reshape Reshape x,part f",
        "fc/MatMul MatMul f,w1 m",
        "fc/Add Add m,w2 b",
        "act/Div Div b,w d",
        "act/Erf Erf d e",
        "act/Add Add e,w o",
        "act/Mul Mul b,o y",
    )
    optimized = graph(
        "flat/Reshape Reshape x,const f",
        "fc/MatMul/MatMulAddFusion Gemm f,w1,w2 gemm_out",
        "gemm_output_reshape Reshape gemm_out,k b",
        "Gelu Gelu b y",
    )
    assert names(original, optimized) == {
        "flat/Reshape": ["flat/Reshape"],
        "fc/MatMul/MatMulAddFusion": ["fc/MatMul", "fc/Add"],
        "gemm_output_reshape": [],
        "Gelu": ["act/Div", "act/Erf", "act/Add", "act/Mul"],
    }


@pytest.mark.parametrize(
    ("entry", "layer"),
    [
        (OnnxNode("layer1.0.conv1/Conv", "Conv", (), ()), "layer1.0.conv1"),
        (OnnxNode("/blocks/blocks.0/attn/qkv/MatMul", "MatMul", (), ()), "blocks.0.attn.qkv"),
        (OnnxNode("/blocks/blocks.1/blocks.1.0/bn1/act/Clip", "Clip", (), ()), "blocks.1.0.bn1.act"),
        (OnnxNode("node_add", "Add", (), (), scopes=("", "layer1", "layer1.0", "add")), "layer1.0"),
        (
            OnnxNode(
                "node_Conv_1",
                "Conv",
                ("x", "conv1.weight"),
                (),
                ("", "bn1", "norm"),
                frozenset({"conv1.weight"}),
            ),
            "conv1",
        ),
        (OnnxNode("Relu_4", "Relu", (), ()), ""),
    ],
)
def test_the_layer_of_a_node_from_each_exporter(entry: OnnxNode, layer: str) -> None:
    assert layer_of(entry) == layer


def test_conversions_name_a_layer_only_when_nothing_else_does() -> None:
    conv, quantize = OnnxNode("a/Conv", "Conv", (), ()), OnnxNode("b/Q", "QuantizeLinear", (), ())
    assert layers_of([quantize, conv]) == ("a",)
    assert layers_of([quantize]) == ("b",)


def test_layers_sum_to_the_whole_the_slowest_first() -> None:
    rows = [
        OperatorCost("Conv", "c", 6.0, 0.6, 1, layers=("a.conv", "a.act")),
        OperatorCost("Gemm", "g", 3.0, 0.3, 3, layers=("head",)),
        OperatorCost("Reorder", "r", 1.0, 0.1, 0, layers=("a.conv",)),
    ]
    first, second = layer_costs(rows)
    assert (first.layer, first.mean_us, first.operators) == ("a.conv", 7.0, ("Reorder", "Conv"))
    assert first.to_json() == {
        "layer": "a.conv", "mean_us": 7.0, "share": pytest.approx(0.7), "operators": ["Reorder", "Conv"],
    }  # fmt: skip
    assert second.layer == "head"


@pytest.fixture
def residual_file(tmp_path: Path) -> Path:
    """:data:`RESIDUAL` with real weights."""
    generator = np.random.default_rng(0)
    shapes = {"w0": (16, 3, 3, 3), "w1": (16, 16, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 5)}
    nodes = [
        helper.make_node(n.op, n.inputs, n.outputs, n.name, **({"pads": [1] * 4} if n.op == "Conv" else {}))
        for n in RESIDUAL
    ]
    made = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [
            numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ],
    )
    path = tmp_path / "residual.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_what_the_file_holds(residual_file: Path) -> None:
    assert read_nodes(residual_file) == RESIDUAL
    (entry,) = read_inputs(residual_file)
    assert (entry.name, entry.type, entry.shape) == ("x", "tensor(float)", ["batch", 3, 16, "?"])
    residual_file.write_bytes(residual_file.read_bytes()[:-9])
    with pytest.raises(ModelFileError, match="truncated"):
        read_nodes(residual_file)


def test_the_runtimes_own_operators_come_from_layers_of_the_file(residual_file: Path) -> None:
    rows = profile_operators(residual_file, runs=3, warmup=1, shape=(3, 16, 16))
    # Whatever was fused on this processor: each arithmetic node of the file stands once, in the row of its layer.
    named = [name for row in rows for name in row.nodes]
    assert len(named) == len(set(named))
    assert {n.name for n in RESIDUAL if n.op in ("Conv", "Gemm", "Add")} <= set(named)
    (second,) = [row for row in rows if "block.conv2/Conv" in row.nodes]
    assert second.layer == "block.conv2"
    assert {row.provider for row in rows} == {"cpu"}
    layers = layer_costs(rows)
    assert {"stem", "block.conv1", "block.conv2", "head"} <= {row.layer for row in layers}
    assert sum(row.share for row in layers) == pytest.approx(1.0)
