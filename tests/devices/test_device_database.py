"""The shipped descriptions as data: complete, consistent, and derived figures as their formulas say."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from edgekd.device import load_device
from edgekd.device_facts import clusters, fact_number, fact_text, known_key, memory_bandwidth
from edgekd.device_parts import Fact
from edgekd.device_spec import DeviceSpec

FOLDER = Path(__file__).parents[2] / "devices"
SPECS = {path.stem: load_device(path) for path in sorted(FOLDER.glob("*.yaml"))}
BOARDS = {name: spec for name, spec in SPECS.items() if name != "cpu"}
JETSONS = {name: spec for name, spec in SPECS.items() if spec.runtime == "tensorrt"}
DERIVED = [
    pytest.param(spec, fact, id=f"{name}-{fact.key}")
    for name, spec in BOARDS.items()
    for fact in spec.facts
    if fact.source.startswith("derived: ") and re.search(r"\d x |\d-bit|2 x dense|sparse / 2", fact.source)
]
_NEEDED = ("cpu_core", "cpu_cores", "cpu_clock_max", "l1d", "l2", "l2_shared_by", "ram", "mem_type", "mem_bus",
           "mem_bw_theoretical", "cpu_flop_per_cycle_fp32", "cpu_op_per_cycle_int8", "cpu_peak_fp32")  # fmt: skip
_NEEDED_OF_A_GPU = ("gpu_arch", "cuda_cores", "tensor_cores", "gpu_sm", "gpu_clock_max", "gpu_peak_fp32", "gpu_l2",
                    "dla_cores")  # fmt: skip


@pytest.mark.parametrize("name", BOARDS)
def test_the_figures_that_an_estimate_starts_from_are_there(name: str) -> None:
    spec = BOARDS[name]
    for key in (*_NEEDED, *(_NEEDED_OF_A_GPU if spec.runtime == "tensorrt" else ())):
        assert fact_text(spec, key) is not None, key
    assert sum(kind.cores or 0 for kind in clusters(spec)) == spec.cores
    assert all(kind.core and kind.clock_ghz for kind in clusters(spec))


@pytest.mark.parametrize("name", SPECS)
def test_every_statement_has_a_source_and_every_figure_a_unit(name: str) -> None:
    spec = SPECS[name]
    said = (*spec.facts, *spec.power_modes, *spec.jetpacks, *spec.runtimes, *spec.trouble)
    said += (spec.arm,) if spec.arm else ()
    assert all(each.source.strip() for each in said)
    for fact in spec.facts:
        key = known_key(fact.key)
        if key is None or key.unit is None:
            continue
        assert fact.unit, fact.key
        assert not isinstance(fact.value, str), fact.key


@pytest.mark.parametrize(("spec", "fact"), DERIVED)
def test_a_derived_figure_is_what_its_formula_gives(spec: DeviceSpec, fact: Fact) -> None:
    formula = re.sub(r"\(.*?\)", "", fact.source.removeprefix("derived: "))
    scale = {"TFLOP/s": 1e-3, "TOP/s": 1e-3}.get(fact.unit, 1.0)
    if formula == "2 x dense":
        expected = 2 * _value(spec, "gpu_peak_int8_dense") * scale
    elif formula == "sparse / 2":
        expected = _value(spec, fact.key.replace("_dense", "_sparse_2_4")) / 2 * scale
    elif bus := re.match(r"(\d+)-bit \S+-(\d+)", formula):
        expected = int(bus[1]) / 8 * int(bus[2]) / 1000
        assert bus[0].split()[1] == fact_text(spec, "mem_type")
    else:
        terms = [math.prod(map(float, re.findall(r"\d+(?:\.\d+)?", term))) for term in formula.split(" + ")]
        expected = sum(terms) * (1e-3 if "MHz" in formula else 1.0) * scale
    assert float(fact.value) == pytest.approx(expected, rel=4e-3)


def _value(spec: DeviceSpec, key: str) -> float:
    if (number := fact_number(spec, key) if known_key(key) else None) is not None:
        return number
    fact = spec.fact(key.replace("_2_4", ""))
    assert fact is not None
    return float(fact.value) * {"TOP/s": 1e3}[fact.unit]


def test_the_peaks_follow_from_cores_clock_and_width() -> None:
    for name, spec in BOARDS.items():
        kinds = clusters(spec)
        peak = sum((k.cores or 0) * (k.clock_ghz or 0) * (k.flop_per_cycle or 0) for k in kinds)
        int8 = sum((k.cores or 0) * (k.clock_ghz or 0) * (k.op_per_cycle_int8 or 0) for k in kinds)
        assert fact_number(spec, "cpu_peak_fp32") == pytest.approx(peak, rel=5e-3), name
        assert fact_number(spec, "cpu_peak_int8") == pytest.approx(int8, rel=5e-3), name


@pytest.mark.parametrize("name", BOARDS)
def test_the_bandwidth_follows_from_the_memory(name: str) -> None:
    spec = BOARDS[name]
    facts = tuple(fact for fact in spec.facts if fact.key != "mem_bw_theoretical")
    by_type = memory_bandwidth(spec.model_copy(update={"facts": facts}))
    assert by_type == pytest.approx(fact_number(spec, "mem_bw_theoretical"), rel=0.01)


@pytest.mark.parametrize("name", JETSONS)
def test_a_jetson_has_jetpacks_and_power_modes_with_one_default(name: str) -> None:
    spec = JETSONS[name]
    jetpack, mode = spec.chosen_jetpack(), spec.default_power_mode()
    assert jetpack is not None and sum(each.default for each in spec.jetpacks) == 1
    assert (jetpack.tensorrt, jetpack.opset_max, jetpack.opset_export) == (
        spec.runtime_version, spec.opset_max, spec.opset_export,
    )  # fmt: skip
    assert mode is not None and sum(each.default for each in spec.power_modes) == 1
    support = spec.runtime_support("tensorrt")
    assert support is not None and (support.version, support.opset_max) == (
        spec.runtime_version,
        spec.opset_max,
    )
    assert (support.int8 != "none") == spec.int8 and (support.sparse_2to4 != "none") == spec.sparse_2to4
    highest = max(each.cpu_clock_ghz for each in spec.power_modes)
    assert highest == pytest.approx(clusters(spec)[0].clock_ghz, rel=0.04)
    assert max(each.cpu_cores for each in spec.power_modes) == clusters(spec)[0].cores


@pytest.mark.parametrize("name", BOARDS)
def test_what_the_runtimes_do_fits_the_cores(name: str) -> None:
    spec = BOARDS[name]
    if spec.runtime == "onnxruntime":
        support = spec.runtime_support("onnxruntime")
        assert support is not None and support.opset_max == spec.opset_max
    if spec.arch == "aarch64":
        assert spec.arm is not None and spec.arm.wheel
        for runtime in ("onnxruntime", "tflite", "ncnn"):
            support = spec.runtime_support(runtime)
            assert support is not None
            assert (support.int8 == "dot-product", support.fp16) == (spec.arm.dotprod, spec.arm.fp16)


def test_dot_product_and_two_to_four_where_the_hardware_has_them() -> None:
    dot = {name for name, spec in BOARDS.items() if spec.arm and spec.arm.dotprod}
    assert dot == {"raspberry-pi-5", "rk3588", *(name for name in BOARDS if "orin" in name)}
    dla = {
        n for n, s in JETSONS.items() if (r := s.runtime_support("tensorrt")) and r.sparse_2to4 == "gpu+dla"
    }
    assert dla == {"jetson-orin-nx-16gb", "jetson-agx-orin"}


def test_armv8_0_boards_warn_of_the_wheel_that_does_not_start_there() -> None:
    for name in ("raspberry-pi-zero-2w", "raspberry-pi-3b-plus", "raspberry-pi-4b", "rk3399"):
        assert any("1.21.0 ends in an illegal instruction" in each.text for each in BOARDS[name].trouble), (
            name
        )
    assert not any("1.21.0" in each.text for each in BOARDS["raspberry-pi-5"].trouble)


def test_figures_as_published() -> None:
    orin = JETSONS["jetson-agx-orin"].power_mode("mode_30w")
    assert (orin.cpu_cores, orin.cpu_clock_ghz, orin.gpu_clock_mhz, orin.cuda_cores) == (8, 1.728, 612, 1024)
    assert fact_number(SPECS["jetson-orin-nano-super"], "mode_25W_gpu_bw_measured") == 95.5
    assert fact_number(SPECS["rk3588"], "cpu_int8_measured_1core_2") == 58.38
    assert fact_number(SPECS["raspberry-pi-4b"], "memcpy_1t") == pytest.approx(2.33)
    assert fact_number(SPECS["jetson-agx-orin"], "gpu_peak_int8_sparse_2_4") == pytest.approx(170390)
    assert memory_bandwidth(SPECS["raspberry-pi-5"]) == 17.1


def test_bandwidth_follows_from_type_and_width_where_it_is_not_stated() -> None:
    spec = SPECS["raspberry-pi-4b"]
    facts = tuple(fact for fact in spec.facts if fact.key != "mem_bw_theoretical")
    assert memory_bandwidth(spec.model_copy(update={"facts": facts})) == 12.8
    facts = tuple(fact for fact in facts if fact.key != "mem_bus")
    assert memory_bandwidth(spec.model_copy(update={"facts": facts})) is None
