"""What an estimate says beside its number: range, basis, operators, what is not validated; and one-line errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgekd.profiles
from edgekd.device import load_device
from edgekd.errors import DeviceError, UserInputError
from edgekd.profiles import estimate
from edgekd.profiles.predicted import LatencyEstimate


def test_an_estimate_says_so_in_its_type_and_adds_up(conv_net: Callable[..., Path]) -> None:
    found = estimate(conv_net(), "raspberry-pi-4b")
    assert isinstance(found, LatencyEstimate)
    assert found.kind == found.to_json()["kind"] == "estimated"
    assert found.low_ms < found.p50_ms < found.high_ms
    assert found.coverage == 0.8
    assert [operator.op for operator in found.operators] == ["Conv"] * 7
    # What is paid once an inference belongs to no operator.
    inside = sum(operator.milliseconds for operator in found.operators)
    assert 0.8 * found.p50_ms < inside < found.p50_ms
    assert {operator.bound for operator in found.operators} <= {"compute", "memory", "overhead"}
    assert found.operators[0].macs == 3 * 32 * 9 * 112 * 112
    assert found.inputs == {"x": (1, 3, 224, 224)}
    assert len(found.model_sha256) == 64
    assert "published latencies" in found.basis


def test_the_package_and_its_function_share_a_name(conv_net: Callable[..., Path]) -> None:
    net = conv_net()
    first = edgekd.profiles.estimate(net, "raspberry-pi-4b", threads=2)
    # By now the package is loaded, and its name stands for the module.
    assert edgekd.profiles.estimate(net, "raspberry-pi-4b", threads=2) == first
    assert first.threads == 2


def test_a_board_of_four_facts_is_priced(conv_net: Callable[..., Path], board: Callable[..., str]) -> None:
    mine = board(cpu_core="Cortex-A72", cpu_cores=4, cpu_clock_max=1.8, mem_type="LPDDR4-3200")
    for runtime in ("onnxruntime", "ncnn", "tflite"):
        for threads in (1, 4):
            unseen = estimate(conv_net(), mine, runtime=runtime, threads=threads)
            known = estimate(conv_net(), "raspberry-pi-4b", runtime=runtime, threads=threads)
            assert abs(math.log(unseen.p50_ms / known.p50_ms)) < math.log(1.7)
            assert "none of this board" in unseen.basis
            assert "some of this board" in known.basis
            assert unseen.high_ms / unseen.low_ms >= 1.3


def test_a_board_of_no_facts_is_priced_and_says_what_was_assumed(
    conv_net: Callable[..., Path], board: Callable[..., str]
) -> None:
    found = estimate(conv_net(), board(cpu_isa="unknown"))
    assert found.p50_ms > 0
    assert any("core unknown: taken for Cortex-A72" in note for note in found.notes)


def test_clusters_in_one_text_are_told_apart(
    conv_net: Callable[..., Path], board: Callable[..., str]
) -> None:
    text = "4x Cortex-A73 2.2 GHz + 2x Cortex-A53 1.8 GHz"
    one = estimate(conv_net(), board(cpu_core=f"'{text}'", mem_type="LPDDR4"), threads=4)
    cores = {"cpu_core": "Cortex-A73", "cpu_cores": 4, "cpu_clock_max": 2.2}
    little = {"cpu_core_2": "Cortex-A53", "cpu_cores_2": 2, "cpu_clock_max_2": 1.8}
    two = estimate(conv_net(), board("other", **cores, **little, mem_type="LPDDR4"), threads=4)
    assert one.p50_ms == pytest.approx(two.p50_ms)


@pytest.mark.parametrize(
    ("device", "runtime", "precision"),
    [
        ("raspberry-pi-zero-2w", "onnxruntime", "fp32"),  # ONNX Runtime was published on no Cortex-A53
        ("raspberry-pi-3b-plus", "onnxruntime", "fp32"),
        ("raspberry-pi-4b", "onnxruntime", "int8"),  # nor int8 of it on Arm
        ("x86-64-avx512-vnni", "tflite", "int8"),
    ],
)
def test_what_nobody_published_is_not_validated(
    conv_net: Callable[..., Path], device: str, runtime: str, precision: str
) -> None:
    found = estimate(conv_net(), device, runtime=runtime, precision=precision)
    assert not found.validated
    assert any(note.startswith("not validated") for note in found.notes)
    near = estimate(conv_net(), "raspberry-pi-4b", runtime="ncnn", precision="fp32")
    assert near.validated
    assert found.high_ms / found.low_ms > near.high_ms / near.low_ms


def test_power_modes_are_named_where_none_was_chosen(conv_net: Callable[..., Path]) -> None:
    free = estimate(conv_net(), "jetson-orin-nano", precision="fp16")
    assert free.power_mode is None
    assert any("no power mode named" in note and "7W" in note for note in free.notes)
    chosen = estimate(conv_net(), "jetson-orin-nano", precision="fp16", power_mode="7w")
    assert chosen.power_mode == "7W"
    assert not any("no power mode named" in note for note in chosen.notes)


def test_ncnn_halves_by_itself_where_the_core_can(conv_net: Callable[..., Path]) -> None:
    assert estimate(conv_net(), "raspberry-pi-4b", runtime="ncnn").precision == "fp32"
    found = estimate(conv_net(), "raspberry-pi-5", runtime="ncnn")
    assert found.precision == "fp16"
    assert any("computes in fp16" in note for note in found.notes)
    assert estimate(conv_net(), "raspberry-pi-5", runtime="ncnn", precision="fp32").precision == "fp32"


@pytest.mark.parametrize(
    ("device", "arguments", "error", "words"),
    [
        (
            "raspberry-pi-4b",
            {"runtime": "tensorflow"},
            DeviceError,
            "allowed: onnxruntime, ncnn, tflite, tensorrt",
        ),
        ("raspberry-pi-4b", {"runtime": "tensorrt"}, DeviceError, "has no GPU that tensorrt could use"),
        ("raspberry-pi-4b", {"threads": 0}, UserInputError, "threads: must be at least 1"),
        ("raspberry-pi-4b", {"threads": -2}, UserInputError, "got -2"),
        ("raspberry-pi-4b", {"batch": 0}, UserInputError, "batch: must be at least 1"),
        ("raspberry-pi-4b", {"precision": "int4"}, UserInputError, "allowed: fp32, fp16, int8"),
        ("raspberry-pi-4b", {"power_mode": "MAXN"}, DeviceError, "no power modes"),
        ("jetson-orin-nano", {"power_mode": "90W"}, DeviceError, "15W"),
        ("jetson-nano", {"precision": "int8"}, DeviceError, "has no int8 kernels there"),
        ("raspberry-pi-9", {}, DeviceError, "raspberry-pi-5"),
    ],
)
def test_errors_are_one_line(
    conv_net: Callable[..., Path],
    device: str,
    arguments: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error) as caught:
        estimate(conv_net(), device, **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_shipped_board_is_priced_by_its_own_runtime(conv_net: Callable[..., Path]) -> None:
    from edgekd.device import list_devices

    for name in list_devices():
        spec = load_device(name)
        found = estimate(conv_net(), spec)
        assert 0.05 < found.p50_ms < 2000, name
        assert found.low_ms < found.high_ms
