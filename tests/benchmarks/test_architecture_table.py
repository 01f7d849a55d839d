"""The operator tables of the published models: against the figures of their papers, and read back as written."""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.latency.architecture_table import (
    TABLE,
    canonical_shape,
    find_architecture,
    read_architectures,
    write_architectures,
)
from benchmarks.latency.architectures import _of_definition
from benchmarks.latency.ncnn_param import read_param
from edgekd.profiles.estimation.operators import FAMILIES, Operator, Workload

PUBLISHED = Path(__file__).parents[2] / "benchmarks/latency/published.csv"

# Multiply-accumulates in 1e9 (half of what some papers call FLOPs) and weights in 1e6, where a paper or the model's
# own repository states them.
STATED = {
    ("mobilenet_v1_1.0", "1x3x224x224"): (0.569, 4.2),  # arXiv:1704.04861
    ("mobilenet_v1_0.25", "1x3x128x128"): (0.0135, 0.5),
    ("mobilenet_v2_1.0", "1x3x224x224"): (0.300, 3.47),  # arXiv:1801.04381
    ("mobilenet_v2_0.35", "1x3x96x96"): (0.0119, 1.66),
    ("mobilenet_v2_1.4", "1x3x224x224"): (0.582, 6.06),
    ("resnet50", "1x3x224x224"): (4.09, 25.6),  # torchvision
    ("vgg16", "1x3x224x224"): (15.47, 138.4),
    ("squeezenet_v1.1", "1x3x224x224"): (0.349, 1.235),
    ("mnasnet_1.0", "1x3x224x224"): (0.314, 4.36),
    ("mobilenet_v3_small_1.0", "1x3x224x224"): (0.056, 2.54),  # arXiv:1905.02244
    ("efficientnet_lite0", "1x3x224x224"): (0.385, 4.63),
    ("yolov8n", "1x3x640x640"): (4.37, 3.15),  # ultralytics: 8.7 GFLOPs
    ("yolo11n", "1x3x640x640"): (3.25, 2.62),
    ("yolov7_tiny", "1x3x640x640"): (6.85, 6.2),  # arXiv:2207.02696: 13.8 GFLOPs
    ("yolov7m", "1x3x640x640"): (52.4, 36.9),
    ("yolox_m", "1x3x640x640"): (36.9, 25.3),  # arXiv:2107.08430
    ("ssdlite_mobilenet_v3_large", "1x3x320x320"): (0.51, 3.22),  # arXiv:1905.02244
    ("ssdlite_mobiledet_cpu", "1x3x320x320"): (0.45, 4.16),  # arXiv:2004.14525
    ("ssdlite_mobiledet_edgetpu", "1x3x320x320"): (1.53, 4.17),
    ("ssd_resnet34_mlperf", "1x3x1200x1200"): (216.7, 20.06),  # Open Model Zoo
    ("pidnet_s", "1x3x512x512"): (5.95, 7.6),  # arXiv:2206.02066: 47.6 at 1024x2048
}


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, str], Workload]:
    return read_architectures()


@pytest.mark.parametrize("key", STATED)
def test_macs_and_weights_are_those_that_are_known(
    table: dict[tuple[str, str], Workload], key: tuple[str, str]
) -> None:
    macs, weights = STATED[key]
    assert table[key].macs / 1e9 == pytest.approx(macs, rel=0.04)
    assert table[key].weight_elements / 1e6 == pytest.approx(weights, rel=0.08)


def test_most_published_rows_have_a_table(table: dict[tuple[str, str], Workload]) -> None:
    with PUBLISHED.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    known = [find_architecture(table, row["model"], row["input_shape"], row["runtime"]) for row in rows]
    assert sum(workload is not None for workload in known) > 0.97 * len(rows)
    assert all(workload.source for workload in table.values())
    assert {operator.family for workload in table.values() for operator in workload.operators} <= set(
        FAMILIES
    )


def test_the_committed_file_is_what_its_content_gives(
    table: dict[tuple[str, str], Workload], tmp_path: Path
) -> None:
    write_architectures(table, tmp_path / "again.json.gz")
    assert (tmp_path / "again.json.gz").read_bytes() == TABLE.read_bytes()


def test_an_operator_comes_back_as_it_was_written(tmp_path: Path) -> None:
    operators = (
        Operator(
            "",
            "Conv",
            "conv-grouped",
            macs=7,
            kernel=(3, 5),
            stride=2,
            groups=2,
            activation="relu",
            fusable=True,
        ),
        Operator("", "Gemm", "gemm", weight_elements=4, weight_element_bytes=0.5),
    )
    wanted = Workload(operators, inputs={"input": (1, 3, 8, 8)}, source="a paper", notes=("a note",))
    write_architectures({("net", "1x3x8x8"): wanted}, tmp_path / "table.json.gz")
    assert read_architectures(tmp_path / "table.json.gz") == {("net", "1x3x8x8"): wanted}


def test_totals_stand_for_operators_that_are_not_known(tmp_path: Path) -> None:
    totals = Workload((), totals={"macs": 5, "weights": 3}, source="a paper")
    write_architectures({("net", "1x80x3000"): totals}, tmp_path / "table.json.gz")
    (found,) = read_architectures(tmp_path / "table.json.gz").values()
    assert (found.macs, found.weight_elements, found.operators) == (5, 3, ())


def test_channels_last_is_the_same_input() -> None:
    assert canonical_shape("1x224x160x3") == canonical_shape("1x3x224x160") == "1x3x224x160"
    assert canonical_shape("1x80x3000") == "1x80x3000"


def test_ncnn_ran_its_own_networks(table: dict[tuple[str, str], Workload]) -> None:
    own = find_architecture(table, "resnet50", "1x3x224x224", "ncnn")
    usual = find_architecture(table, "resnet50", "1x224x224x3", "TFLite(ruy)")
    assert own is not None and usual is not None
    assert (round(own.macs / 1e6), round(usual.macs / 1e6)) == (3858, 4089)  # the stride stands elsewhere


def test_a_network_in_ncnns_format(tmp_path: Path) -> None:
    lines = [
        "7767517", "9 10",
        "Input            data    0 1 data 0=8 1=8 2=3",
        "Convolution      conv1   1 1 data a 0=16 1=3 3=2 4=1 5=1 6=432 9=1",
        "Split            split   1 2 a a0 a1",
        "ConvolutionDepthWise dw  1 1 a0 b 0=16 1=3 4=1 5=1 6=144 7=16 9=6",
        "Eltwise          add     2 1 b a1 c 0=1",
        "Slice            half    1 2 c d e -23300=2,-233,-233 1=0",
        "Concat           cat     2 1 d e f 0=0",
        "Pooling          pool    1 1 f g 0=1 4=1",
        "InnerProduct     fc      1 1 g h 0=10 1=1 2=160",
    ]  # fmt: skip
    (tmp_path / "net.param").write_text("\n".join(lines) + "\n")
    found = read_param(tmp_path / "net.param", (1, 3, 8, 8))
    assert [(operator.op, operator.family, operator.macs) for operator in found] == [
        ("Conv", "conv-first", 16 * 16 * 27), ("Conv", "conv-depthwise", 16 * 16 * 9),
        ("HardSwish", "activation-expensive", 0), ("Add", "elementwise", 0), ("Split", "copy", 0),
        ("Concat", "concat", 0), ("GlobalAveragePool", "global-pool", 0), ("Flatten", "reshape", 0),
        ("Gemm", "gemm", 160),
    ]  # fmt: skip
    assert (found[0].activation, found[0].height, found[0].weight_elements) == ("relu", 4, 448)
    assert found[2].fusable


def test_a_weight_that_does_not_fit_its_layer_is_refused(tmp_path: Path) -> None:
    text = "7767517\n2 2\nInput data 0 1 data\nConvolution c 1 1 data a 0=16 1=3 6=433\n"
    (tmp_path / "net.param").write_text(text)
    with pytest.raises(ValueError, match="c: weights of 433"):
        read_param(tmp_path / "net.param", (1, 3, 8, 8))


def test_the_table_is_what_the_definitions_give_today(table: dict[tuple[str, str], Workload]) -> None:
    """One export read at two sizes; a change in reading graphs must reach the table too."""
    from edgekd.models.torchvision_shim import ensure_torchvision_ops

    ensure_torchvision_ops()
    shapes = ["1x3x96x96", "1x3x224x224"]
    options = argparse.Namespace(yolov7=None, onnx=None)
    found = _of_definition("mobilenet_v2_0.35", shapes, options)
    assert {key[1] for key in found} == set(shapes)
    for key, workload in found.items():
        assert [replace(operator, node="") for operator in workload.operators] == list(table[key].operators)
