"""Estimates against rows of ``published.csv``: the figures stand here, so that a fit that drifts is seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from benchmarks.latency.architecture_table import find_architecture, read_architectures  # noqa: E402
from edgekd.device import load_device  # noqa: E402
from edgekd.profiles.estimation.api import estimate_workload  # noqa: E402
from edgekd.profiles.estimation.operators import Workload  # noqa: E402
from edgekd.profiles.estimation.runtimes import runtime_kind  # noqa: E402

# Board, runtime, precision, threads, model, input, published milliseconds.
GOLDEN = [
    ("raspberry-pi-4b", "ncnn", "fp32", 4, "mobilenet_v2_1.0", "1x3x224x224", 61.88),
    ("raspberry-pi-4b", "ncnn", "fp32", 1, "resnet50", "1x3x224x224", 534.11),
    ("raspberry-pi-4b", "ncnn", "int8", 4, "resnet50", "1x3x224x224", 196.65),
    ("raspberry-pi-5", "ncnn", "fp16", 4, "resnet50", "1x3x224x224", 46.21),
    ("raspberry-pi-5", "ncnn", "fp16", 1, "squeezenet_v1.1", "1x3x227x227", 11.87),
    ("raspberry-pi-4b", "tflite-ruy", "fp32", 4, "resnet50", "1x3x224x224", 554.9),
    ("jetson-orin-nano", "ncnn", "fp16", 6, "mobilenet_v2_1.0", "1x3x224x224", 5.86),
    ("jetson-orin-nano", "tensorrt", "fp16", None, "yolov8n", "1x3x640x640", 7.0576),
    ("jetson-xavier-nx", "tensorrt", "fp16", None, "yolov8n", "1x3x640x640", 8.2406),
    ("jetson-orin-nano", "tensorrt", "fp16", None, "yolov8n", "1x3x320x320", 2.9828),
    ("jetson-orin-nano", "tensorrt", "fp16", None, "yolov8n", "1x3x1280x1280", 23.3978),
]


@pytest.fixture(scope="module")
def networks() -> dict[tuple[str, str], Workload]:
    return read_architectures()


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: "-".join(str(part) for part in row))
def test_a_published_latency_lies_in_the_range(
    networks: dict[tuple[str, str], Workload], row: tuple[str, str, str, int | None, str, str, float]
) -> None:
    device, runtime, precision, threads, model, shape, published = row
    workload = find_architecture(networks, model, shape, runtime)
    assert workload is not None
    found = estimate_workload(
        workload, load_device(device), runtime_kind(runtime), precision=precision, threads=threads
    )
    assert found.validated
    assert found.low_ms < published < found.high_ms
    assert abs(found.p50_ms / published - 1) < 0.3
