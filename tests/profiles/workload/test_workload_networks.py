"""Operators of real networks, against the figures of their papers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.profiles.estimation.workload import read_workload

ExportNet = Callable[..., Path]

# Multiply-accumulates and parameters with batch norm folded; arXiv:1801.04381 table 4, arXiv:1512.03385 table 1.
NETWORKS = {
    "mobilenetv2_100": (
        0.3008e9,
        3.488e6,
        65,
        {"conv-depthwise": 17, "conv-1x1": 34, "conv-first": 1, "gemm": 1},
    ),
    "resnet18": (
        1.8141e9,
        11.684e6,
        32,
        {"conv-dense-3x3": 13, "conv-dense-other": 3, "conv-1x1": 3, "pool": 1},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_parameters_and_families(export_net: ExportNet, name: str) -> None:
    macs, parameters, count, families = NETWORKS[name]
    workload = read_workload(export_net(name))
    assert workload.macs == pytest.approx(macs, rel=1e-3)
    assert workload.weight_elements == pytest.approx(parameters, rel=1e-3)
    assert len(workload.operators) == count
    found = Counter(operator.family for operator in workload.operators)
    assert {family: found[family] for family in families} == families
    assert (workload.precision, workload.opset, dict(workload.inputs)) == (
        "fp32",
        17,
        {"input": (1, 3, 224, 224)},
    )


def test_an_operator_in_full(export_net: ExportNet) -> None:
    first, depthwise, *_ = read_workload(export_net("mobilenetv2_100")).operators
    assert (first.op, first.family, first.activation) == ("Conv", "conv-first", "clip")
    assert (first.macs, first.input_elements, first.output_elements, first.weight_elements) == (
        112 * 112 * 32 * 27, 3 * 224 * 224, 32 * 112 * 112, 32 * 27 + 32,
    )  # fmt: skip
    assert (first.kernel, first.stride, first.groups) == ((3, 3), 2, 1)
    assert (first.channels_in, first.channels_out, first.height, first.width) == (3, 32, 112, 112)
    assert (first.input_bytes, first.weight_bytes) == (4 * 3 * 224 * 224, 4 * (32 * 27 + 32))
    assert (depthwise.family, depthwise.groups, depthwise.macs) == ("conv-depthwise", 32, 112 * 112 * 32 * 9)


def test_an_open_batch_scales_activations_and_not_weights(export_net: ExportNet) -> None:
    path = export_net("mobilenetv2_100", dynamic=True)
    one, four = read_workload(path), read_workload(path, batch=4)
    assert four.macs == 4 * one.macs
    assert four.weight_elements == one.weight_elements
    assert [operator.family for operator in four.operators] == [operator.family for operator in one.operators]
    assert four.inputs["input"] == (4, 3, 224, 224)


def test_attention_gelu_and_layer_norm(export_net: ExportNet) -> None:
    workload = read_workload(export_net("vit_tiny_patch16_224"))
    found = Counter(operator.family for operator in workload.operators)
    # Twelve blocks: four linear layers, two products of activations, two norms and one GELU each.
    assert (found["matmul-tokens"], found["attention"], found["softmax"]) == (48, 24, 12)
    assert (found["norm"], found["activation-expensive"]) == (25, 12)
    product = next(operator for operator in workload.operators if operator.family == "attention")
    assert (product.macs, product.groups, product.height) == (3 * 197 * 197 * 64, 3, 197)
    assert workload.macs == pytest.approx(1.254e9, rel=5e-3)  # arXiv:2012.12877: 1.3 GFLOPs


def test_reading_needs_neither_torch_nor_onnxruntime(export_net: ExportNet) -> None:
    path = export_net("mobilenetv2_100")
    code = (
        "import sys, pathlib; from edgekd.profiles.estimation.workload import read_workload;"
        f"read_workload(pathlib.Path({str(path)!r}));"
        "print(sorted({'torch', 'onnxruntime', 'timm'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_it_takes_less_processor_time_than_two_seconds(export_net: ExportNet) -> None:
    path = export_net("mobilenetv2_100")
    start = time.process_time()
    read_workload(path)
    assert time.process_time() - start < 2
