"""Weights are read as a runtime stores them, which need not be as it computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekd.device import load_device
from edgekd.profiles.estimation.core_kinds import core_kind
from edgekd.profiles.estimation.hardware import read_hardware
from edgekd.profiles.estimation.op_table import op_table
from edgekd.profiles.estimation.operators import Operator
from edgekd.profiles.estimation.parameters import fitted
from edgekd.profiles.estimation.pricing import terms_of
from edgekd.profiles.estimation.runtimes import runtime_kind
from edgekd.profiles.estimation.terms import OpSeconds, price

BOARD = read_hardware(load_device("raspberry-pi-4b"))
LAYER = Operator(
    "fc", "Gemm", "gemm", macs=9216 * 4096, input_elements=9216, output_elements=4096, weight_elements=9216 * 4096,
    channels_in=9216, channels_out=4096,
)  # fmt: skip


def seconds(
    operator: Operator,
    runtime: str = "ncnn",
    precision: str = "fp32",
    core: str | None = None,
) -> OpSeconds:
    kind = BOARD.clusters[0].kind if core is None else core_kind(core, "x86_64")
    hardware = replace(BOARD, clusters=(replace(BOARD.clusters[0], kind=kind),))
    terms = terms_of(op_table([operator]), hardware, runtime_kind(runtime), precision, 1)
    return price(terms, fitted("cpu").values)


@pytest.mark.parametrize(
    ("runtime", "precision", "core", "bytes_each"),
    [
        ("ncnn", "fp32", None, 2),
        ("ncnn", "int8", None, 1),
        ("ncnn", "fp32", "Zen 3", 2),
        ("ncnn", "fp32", "Tremont", 4),  # no F16C
        ("onnxruntime", "fp32", None, 4),
    ],
)
def test_ncnn_stores_fully_connected_weights_in_half(
    runtime: str, precision: str, core: str | None, bytes_each: int
) -> None:
    def moved(weights: int) -> float:
        return float(
            np.sum(seconds(replace(LAYER, weight_elements=weights), runtime, precision, core).memory)
        )

    # Far beyond any cache: time grows with the bytes alone. A convolution's weights are never halved.
    other = replace(LAYER, family="conv-1x1", kernel=(1, 1))
    whole = float(np.sum(seconds(other, runtime, precision, core).memory))
    size = {"fp32": 4, "int8": 1}[precision]
    assert moved(LAYER.weight_elements) / whole == pytest.approx(bytes_each / size, rel=0.01)
