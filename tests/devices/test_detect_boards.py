"""From recorded texts of real machines to a device description."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.device import keep_device, load_device
from edgekd.device_facts import clusters, fact_number, fact_text
from edgekd.device_spec import DeviceSpec
from edgekd.errors import DeviceError

Found = Callable[..., DeviceSpec]
Machine = Callable[..., dict[str, Any]]
Files = Callable[..., dict[str, str]]
Boards = SimpleNamespace


def test_a_pi_4_keeps_the_sourced_figures_and_takes_its_own_memory_and_runtime(
    found: Found, boards: Boards
) -> None:
    spec = found(boards.pi4)
    assert (spec.name, spec.title) == ("raspberry-pi-4b-board", "Raspberry Pi 4 Model B Rev 1.4")
    assert (spec.runtime_version, spec.opset_max, spec.memory_bytes) == ("1.22.1", 21, 3885396 * 1024)
    assert spec.arm is not None and (spec.arm.level, spec.arm.dotprod) == ("8.0-A", False)
    (cluster,) = clusters(spec)
    assert (cluster.core, cluster.cores, cluster.clock_ghz, cluster.l2_kib) == ("Cortex-A72", 4, 1.8, 1024)
    assert fact_number(spec, "stream_triad") == pytest.approx(4.8441)
    assert fact_number(spec, "cpu_peak_fp32") == 57.6
    fact = spec.fact("cpu_clock_max")
    assert fact is not None and fact.source == "read on board: /proc, /sys"


def test_a_pi_4_at_another_clock_loses_the_peaks_of_the_stated_one(found: Found, boards: Boards) -> None:
    slow = json.loads(json.dumps(boards.pi4).replace("1800000", "1500000"))
    spec = found(slow)
    assert fact_number(spec, "cpu_clock_max") == 1.5
    assert spec.fact("cpu_peak_fp32") is None and spec.fact("cpu_peak_int8") is None
    assert spec.fact("stream_copy") is not None


def test_a_pi_5_has_the_dot_product_and_the_caches_that_the_kernel_shows(
    found: Found, boards: Boards
) -> None:
    spec = found(boards.pi5)
    (cluster,) = clusters(spec)
    assert (cluster.core, cluster.l1d_kib, cluster.l2_kib, cluster.l2_shared_by) == ("Cortex-A76", 64, 512, 1)
    assert fact_number(spec, "l3") == 2048
    support = spec.runtime_support("onnxruntime")
    assert support is not None and (support.int8, support.fp16) == ("dot-product", True)


def test_a_jetson_is_known_with_its_jetpack_and_the_mode_it_runs_in(found: Found, boards: Boards) -> None:
    spec = found(boards.orin_nano)
    assert spec.name == "jetson-orin-nano-super-board"
    assert (spec.runtime, spec.runtime_version, spec.jetpack) == ("tensorrt", "10.3", "6.2")
    mode = spec.default_power_mode()
    assert mode is not None and (mode.name, mode.gpu_clock_mhz) == ("MAXN_SUPER", 1020)
    assert sum(each.default for each in spec.power_modes) == 1
    assert spec.sparse_2to4 and fact_number(spec, "tensor_cores") == 32


def test_an_older_jetpack_limits_the_opset(found: Found, boards: Boards) -> None:
    old = json.loads(
        json.dumps(boards.orin_nano).replace("R36 (release), REVISION: 4.3", "R35 (release), REVISION: 4.1")
    )
    old["files"]["/proc/device-tree/model"] = "NVIDIA Jetson Orin Nano Developer Kit\0"
    old["files"]["/proc/device-tree/compatible"] = "nvidia,p3768-0000+p3767-0003\0nvidia,p3767-0003\0"
    spec = found(old)
    assert (spec.runtime_version, spec.jetpack, spec.opset_max) == ("8.5.2", "5.1.2", 17)


def test_an_unknown_l4t_is_treated_as_the_one_before_and_says_so(found: Found, boards: Boards) -> None:
    new = json.loads(
        json.dumps(boards.orin_nano).replace("REVISION: 4.3", "REVISION: 5.0").replace("uper", "")
    )
    spec = found(new)
    assert spec.jetpack == "6.2"
    assert spec.trouble[-1].text.startswith("L4T 36.5.0 is not known here: treated as JetPack 6.2")


def test_a_tensorrt_of_ones_own_is_told(found: Found, boards: Boards) -> None:
    same = found({**boards.orin_nano, "commands": {"tensorrt": "10.3.0.30-1+cuda12.5"}})
    other = found({**boards.orin_nano, "commands": {"tensorrt": "10.7.0.23-1+cuda12.6"}})
    assert not any("is installed there" in each.text for each in same.trouble)
    assert other.trouble[-1].text.startswith("TensorRT 10.7.0 is installed there, JetPack 6.2 came with 10.3")


def test_a_gpu_at_another_clock_loses_the_peaks_of_the_stated_one(found: Found, boards: Boards) -> None:
    table = {"/sys/class/devfreq/17000000.gpu/available_frequencies": "306000000 612000000 1020000000\n"}
    stated = found({**boards.orin_nano, "files": boards.orin_nano["files"] | table})
    assert fact_number(stated, "gpu_clock_max") == 1020
    assert fact_number(stated, "gpu_peak_fp32") == pytest.approx(2089.0)
    table = dict.fromkeys(table, "306000000 624750000\n")
    slow = found({**boards.orin_nano, "files": boards.orin_nano["files"] | table})
    assert fact_number(slow, "gpu_clock_max") == 624.75
    assert not [fact.key for fact in slow.facts if fact.key.startswith("gpu_peak_")]


def test_cores_that_a_power_mode_switched_off_are_still_the_boards(
    found: Found, machine: Machine, boards: Boards, cores: Boards
) -> None:
    report = machine([cores.a78ae] * 4, model="NVIDIA Jetson AGX Orin Developer Kit", kilohertz=[1113600] * 4,
                     tegra=boards.orin_tegra, commands={"nvpmodel": "NV Power Mode: MODE_15W\n1\n"})  # fmt: skip
    spec = found(report)
    (cluster,) = clusters(spec)
    assert (spec.cores, cluster.cores, cluster.clock_ghz) == (12, 12, pytest.approx(2.2016))
    mode = spec.default_power_mode()
    assert mode is not None and (mode.name, mode.cpu_cores) == ("MODE_15W", 4)


def test_big_and_little_cores_are_told_apart_fastest_first(found: Found, boards: Boards) -> None:
    spec = found(boards.rk3588)
    assert [(c.core, c.cores, c.clock_ghz) for c in clusters(spec)] == [
        ("Cortex-A76", 4, 2.4), ("Cortex-A55", 4, 1.8),
    ]  # fmt: skip
    assert spec.cores == 8


def test_kinds_of_one_clock_come_with_the_more_numerous_first(
    found: Found, machine: Machine, cores: Boards
) -> None:
    tx2 = machine(
        [cores.a57, cores.denver2, cores.denver2, cores.a57, cores.a57, cores.a57],
        model="quill",
        kilohertz=[2035200] * 6,
    )
    assert [(c.core, c.cores) for c in clusters(found(tx2))] == [("Cortex-A57", 4), ("Denver 2", 2)]


def test_an_unknown_board_runs_onnxruntime_on_its_processor(
    found: Found, machine: Machine, cache: Files, cores: Boards
) -> None:
    server = machine([("0x41", "0xd0c", cores.armv82_flags)] * 2, files=cache(0, 2, 2, "Unified", "1M", "0"))
    spec = found(server)
    assert (spec.name, spec.title, spec.runtime) == ("neoverse-n1-board", "aarch64", "onnxruntime")
    assert spec.arm is not None and (spec.arm.level, spec.arm.fp16) == ("8.2-A", True)
    assert fact_number(spec, "l2") == 1024
    assert fact_text(spec, "cpu_core") == "Neoverse-N1"
    odd = found(machine([("0x99", "0xfff", "fp asimd")] * 2))
    assert fact_text(odd, "cpu_core") == "Arm core 0x99/0xfff"


def test_x86_by_its_flags_and_the_clock_in_its_name(found: Found, boards: Boards) -> None:
    spec = found(boards.x86)
    assert (spec.name, spec.scheme, spec.opset_max) == ("x86-64-avx2-b-ro-pc", "u8s8-reduce-range", 26)
    assert (fact_text(spec, "cpu_core"), fact_number(spec, "cpu_clock_max")) == ("x86-64 AVX2", 1.6)
    support = spec.runtime_support("onnxruntime")
    assert support is not None and support.int8 == "saturating"
    vnni = json.loads(json.dumps(boards.x86).replace("fma", "fma avx512f avx512_vnni"))
    assert found(vnni).scheme == "u8s8"


def test_a_kept_device_is_found_again_and_no_shipped_one_is_replaced(found: Found, boards: Boards) -> None:
    spec = found(boards.pi4, name="kitchen")
    keep_device(spec)
    assert load_device("kitchen") == spec
    with pytest.raises(DeviceError, match=r"^name: a shipped device has this name; got 'raspberry-pi-4b'"):
        keep_device(found(boards.pi4, name="raspberry-pi-4b"))
