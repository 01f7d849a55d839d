"""What any machine obeys: more clock, more threads, less work are never slower; formats cost what they cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.device import load_device
from edgekd.profiles import estimate

DENSE = ((64, 7, 2, 1), (64, 3, 1, 1), (256, 3, 2, 1), (256, 3, 1, 1))
ARM = {"cpu_core": "Cortex-A73", "cpu_cores": 4, "cpu_clock_max": 2.0, "mem_type": "LPDDR4"}

RUNTIMES = ("onnxruntime", "ncnn", "tflite")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_more_threads_are_not_slower(conv_net: Callable[..., Path], runtime: str) -> None:
    times = [
        estimate(conv_net(), "raspberry-pi-4b", runtime=runtime, threads=threads).p50_ms
        for threads in (1, 2, 3, 4)
    ]
    assert times == sorted(times, reverse=True)
    assert 1.2 < times[0] / times[3] < 4


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_faster_clock_is_faster_and_no_more_than_by_its_ratio(
    conv_net: Callable[..., Path], board: Callable[..., str], runtime: str
) -> None:
    slow = estimate(conv_net(), board(**ARM), runtime=runtime).p50_ms
    fast = estimate(conv_net(), board(**{**ARM, "cpu_clock_max": 2.4}), runtime=runtime).p50_ms
    assert 1 < slow / fast <= 1.2 + 1e-6


def test_more_memory_bandwidth_is_not_slower(
    conv_net: Callable[..., Path], board: Callable[..., str]
) -> None:
    facts = {key: value for key, value in ARM.items() if key != "mem_type"}
    narrow = estimate(conv_net(), board(**facts, mem_bw_theoretical=3.2)).p50_ms
    wide = estimate(conv_net(), board(**facts, mem_bw_theoretical=25.6)).p50_ms
    assert wide < narrow


@pytest.mark.parametrize("device", ["raspberry-pi-5", "jetson-orin-nano", "x86-64-avx2"])
def test_fewer_operations_are_faster(conv_net: Callable[..., Path], device: str) -> None:
    times = [estimate(conv_net(size=size), device).p50_ms for size in (96, 128, 160, 224, 320)]
    assert times == sorted(times)


def test_a_lower_power_mode_is_slower(conv_net: Callable[..., Path]) -> None:
    spec = load_device("jetson-agx-orin")
    net = conv_net(DENSE)
    times = [
        estimate(net, spec, precision="fp16", power_mode=mode).p50_ms
        for mode in ("MAXN", "MODE_30W", "MODE_15W")
    ]
    assert times == sorted(times)
    assert estimate(net, spec, precision="fp16").p50_ms == pytest.approx(times[0], rel=0.01)
    threads = [
        estimate(net, spec, runtime="onnxruntime", power_mode=mode).p50_ms for mode in ("MAXN", "MODE_15W")
    ]
    assert threads[0] < threads[1]


def test_a_dot_product_makes_int8_pay_more(conv_net: Callable[..., Path], board: Callable[..., str]) -> None:
    """On boards known by their facts alone: published ones are corrected by what their rows were off by."""
    gains = {}
    for core in ("Cortex-A72", "Cortex-A76"):
        spec = board(**{**ARM, "cpu_core": core})
        times = [
            estimate(conv_net(DENSE), spec, runtime="tflite", precision=precision).p50_ms
            for precision in ("fp32", "int8")
        ]
        gains[core] = times[0] / times[1]
    assert 1 < gains["Cortex-A72"] < gains["Cortex-A76"]


def test_half_precision_is_arithmetic_only_where_core_and_runtime_have_it(
    conv_net: Callable[..., Path],
) -> None:
    def ratio(device: str, runtime: str) -> float:
        floats = estimate(conv_net(DENSE), device, runtime=runtime, precision="fp32", threads=1)
        halves = estimate(conv_net(DENSE), device, runtime=runtime, precision="fp16", threads=1)
        storage = any("storage only" in note for note in halves.notes)
        assert storage == (floats.p50_ms == halves.p50_ms)
        return floats.p50_ms / halves.p50_ms

    assert ratio("raspberry-pi-5", "ncnn") > 1.3
    assert ratio("raspberry-pi-4b", "ncnn") == 1  # Cortex-A72
    assert ratio("raspberry-pi-5", "tflite") == 1


def test_2_to_4_weights_pay_on_an_orin_gpu_alone_and_little(conv_net: Callable[..., Path]) -> None:
    wide = ((64, 7, 4, 1), (512, 3, 1, 1), (512, 3, 1, 1), (512, 3, 1, 1))

    def gain(device: str, runtime: str, precision: str) -> float:
        dense = estimate(conv_net(wide), device, runtime=runtime, precision=precision)
        sparse = estimate(
            conv_net(wide, name="sparse", sparse=True), device, runtime=runtime, precision=precision
        )
        return dense.p50_ms / sparse.p50_ms

    assert 1.02 < gain("jetson-agx-orin", "tensorrt", "int8") <= 1.15
    assert gain("jetson-agx-xavier", "tensorrt", "int8") == 1  # Volta has no sparse tensor cores
    assert gain("jetson-agx-orin", "onnxruntime", "fp32") == 1
    assert gain("raspberry-pi-5", "ncnn", "fp32") == 1


def test_narrow_convolutions_gain_nothing_from_2_to_4(conv_net: Callable[..., Path]) -> None:
    thin = ((64, 7, 2, 1), (128, 3, 1, 1), (128, 3, 1, 1))
    times = {
        estimate(conv_net(thin, name=str(sparse), sparse=sparse), "jetson-agx-orin", precision="fp16").p50_ms
        for sparse in (False, True)
    }
    assert len(times) == 1
