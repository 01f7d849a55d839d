"""From recorded texts of real machines to a device description.

The texts have the form that these boards' kernels print; serial numbers are left out.
"""

from __future__ import annotations

import ast
import functools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekd import device_probe
from edgekd.cpu import cpu_from_text, detect_cpu
from edgekd.device import keep_device, load_device, parse_device
from edgekd.device_detect import describe, parse_report
from edgekd.device_facts import clusters, fact_number, fact_text
from edgekd.device_spec import DeviceSpec
from edgekd.errors import DeviceError
from edgekd.machine_speed import Speed, remember, remembered, speed_facts
from edgekd.probe import busy_note, detect_device, probe_script, run_here

A72 = ("0x41", "0xd08", "fp asimd evtstrm crc32 cpuid")
_ARMV82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
A76 = ("0x41", "0xd0b", _ARMV82)
A55 = ("0x41", "0xd05", _ARMV82)
A78AE = ("0x41", "0xd42", _ARMV82 + " uscat ilrcpc flagm")
A57 = ("0x41", "0xd07", "fp asimd evtstrm aes pmull sha1 sha2 crc32")
DENVER2 = ("0x4e", "0x003", "fp asimd evtstrm aes pmull sha1 sha2 crc32")
_CPU = "/sys/devices/system/cpu/cpu"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))


def arm_cpuinfo(cores: list[tuple[str, str, str]], tail: str = "") -> str:
    blocks = [
        f"processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {flags}\nCPU implementer\t: {implementer}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n"
        for number, (implementer, part, flags) in enumerate(cores)
    ]
    return "\n".join(blocks) + "\n" + tail


def machine(
    cores: list[tuple[str, str, str]],
    *,
    model: str = "",
    compatible: str = "",
    kilohertz: list[int] | None = None,
    memory_kb: int = 3885396,
    tegra: str = "",
    **more: Any,
) -> dict[str, Any]:
    files = {
        "/proc/cpuinfo": arm_cpuinfo(cores, f"Model\t\t: {model}\n" if model else ""),
        "/proc/meminfo": f"MemTotal:        {memory_kb} kB\nMemFree:          100 kB\n",
        **{f"{_CPU}{n}/cpufreq/cpuinfo_max_freq": f"{clock}\n" for n, clock in enumerate(kilohertz or [])},
        **more.pop("files", {}),
    }
    if model:
        files["/proc/device-tree/model"] = model + "\0"
    if compatible:
        files["/proc/device-tree/compatible"] = compatible.replace(" ", "\0") + "\0"
    if tegra:
        files["/etc/nv_tegra_release"] = tegra
    return {
        "schema": 1, "machine": "aarch64", "bits": 64, "host": "board", "cores": len(cores), "python": "3.11.2",
        "packages": {}, "commands": {}, "files": files, **more,
    }  # fmt: skip


@functools.cache
def _shipped() -> list[DeviceSpec]:
    return [load_device(file) for file in (Path(__file__).parents[2] / "devices").glob("*.yaml")]


def cache(cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> dict[str, str]:
    here = f"{_CPU}{cpu}/cache/index{index}"
    return {f"{here}/level": f"{level}\n", f"{here}/type": f"{kind}\n", f"{here}/size": f"{size}\n",
            f"{here}/shared_cpu_list": f"{shared}\n"}  # fmt: skip


def found(report: dict[str, Any], **more: str) -> DeviceSpec:
    spec = describe(parse_report(json.dumps(report), where="board"), _shipped(), where="board", **more)
    assert parse_device(spec.to_yaml(), where="its own file") == spec
    return spec


PI4 = machine(
    [A72] * 4, model="Raspberry Pi 4 Model B Rev 1.4", compatible="raspberrypi,4-model-b brcm,bcm2711",
    kilohertz=[1800000] * 4, packages={"onnxruntime": "1.22.1", "numpy": "2.2.6"},
)  # fmt: skip
PI5 = machine(
    [A76] * 4, model="Raspberry Pi 5 Model B Rev 1.0", compatible="raspberrypi,5-model-b brcm,bcm2712",
    kilohertz=[2400000] * 4, memory_kb=8256000,
    files=cache(0, 0, 1, "Data", "64K", "0") | cache(0, 2, 2, "Unified", "512K", "0")
    | cache(0, 3, 3, "Unified", "2048K", "0-3"),
)  # fmt: skip
ORIN_TEGRA = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8\n"
)
ORIN_NANO = machine(
    [A78AE] * 6, model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    compatible="nvidia,p3768-0000+p3767-0005-super nvidia,p3767-0005 nvidia,tegra234", kilohertz=[1728000] * 6,
    memory_kb=7802728, tegra=ORIN_TEGRA, commands={"nvpmodel": "NV Power Mode: MAXN_SUPER\n2\n"},
)  # fmt: skip
RK3588 = machine(
    [A55] * 4 + [A76] * 4, model="Radxa ROCK 5B", compatible="radxa,rock-5b rockchip,rk3588",
    kilohertz=[1800000] * 4 + [2400000] * 4,
)  # fmt: skip
X86 = {
    "machine": "x86_64", "bits": 64, "host": "Büro PC", "cores": 2, "packages": {"onnxruntime": "1.31.1"},
    "files": {
        "/proc/cpuinfo": "".join(
            f"processor\t: {n}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz\n"
            "cpu MHz\t\t: 3100.011\nflags\t\t: fpu sse2 avx avx2 fma\n\n" for n in range(2)
        ),
        "/proc/meminfo": "MemTotal:       16262096 kB\n",
    },
}  # fmt: skip


def test_a_pi_4_keeps_the_sourced_figures_and_takes_its_own_memory_and_runtime() -> None:
    spec = found(PI4)
    assert (spec.name, spec.title) == ("raspberry-pi-4b-board", "Raspberry Pi 4 Model B Rev 1.4")
    assert (spec.runtime_version, spec.opset_max, spec.memory_bytes) == ("1.22.1", 21, 3885396 * 1024)
    assert spec.arm is not None and (spec.arm.level, spec.arm.dotprod) == ("8.0-A", False)
    (cluster,) = clusters(spec)
    assert (cluster.core, cluster.cores, cluster.clock_ghz, cluster.l2_kib) == ("Cortex-A72", 4, 1.8, 1024)
    assert fact_number(spec, "stream_triad") == pytest.approx(4.8441)
    assert fact_number(spec, "cpu_peak_fp32") == 57.6
    fact = spec.fact("cpu_clock_max")
    assert fact is not None and fact.source == "read on board: /proc, /sys"


def test_a_pi_4_at_another_clock_loses_the_peaks_of_the_stated_one() -> None:
    slow = json.loads(json.dumps(PI4).replace("1800000", "1500000"))
    spec = found(slow)
    assert fact_number(spec, "cpu_clock_max") == 1.5
    assert spec.fact("cpu_peak_fp32") is None and spec.fact("cpu_peak_int8") is None
    assert spec.fact("stream_copy") is not None


def test_a_pi_5_has_the_dot_product_and_the_caches_that_the_kernel_shows() -> None:
    spec = found(PI5)
    (cluster,) = clusters(spec)
    assert (cluster.core, cluster.l1d_kib, cluster.l2_kib, cluster.l2_shared_by) == ("Cortex-A76", 64, 512, 1)
    assert fact_number(spec, "l3") == 2048
    support = spec.runtime_support("onnxruntime")
    assert support is not None and (support.int8, support.fp16) == ("dot-product", True)


def test_a_jetson_is_known_with_its_jetpack_and_the_mode_it_runs_in() -> None:
    spec = found(ORIN_NANO)
    assert spec.name == "jetson-orin-nano-super-board"
    assert (spec.runtime, spec.runtime_version, spec.jetpack) == ("tensorrt", "10.3", "6.2")
    mode = spec.default_power_mode()
    assert mode is not None and (mode.name, mode.gpu_clock_mhz) == ("MAXN_SUPER", 1020)
    assert sum(each.default for each in spec.power_modes) == 1
    assert spec.sparse_2to4 and fact_number(spec, "tensor_cores") == 32


def test_an_older_jetpack_limits_the_opset() -> None:
    old = json.loads(
        json.dumps(ORIN_NANO).replace("R36 (release), REVISION: 4.3", "R35 (release), REVISION: 4.1")
    )
    old["files"]["/proc/device-tree/model"] = "NVIDIA Jetson Orin Nano Developer Kit\0"
    old["files"]["/proc/device-tree/compatible"] = "nvidia,p3768-0000+p3767-0003\0nvidia,p3767-0003\0"
    spec = found(old)
    assert (spec.runtime_version, spec.jetpack, spec.opset_max) == ("8.5.2", "5.1.2", 17)


def test_an_unknown_l4t_is_treated_as_the_one_before_and_says_so() -> None:
    new = json.loads(json.dumps(ORIN_NANO).replace("REVISION: 4.3", "REVISION: 5.0").replace("uper", ""))
    spec = found(new)
    assert spec.jetpack == "6.2"
    assert spec.trouble[-1].text.startswith("L4T 36.5.0 is not known here: treated as JetPack 6.2")


def test_a_tensorrt_of_ones_own_is_told() -> None:
    same = found({**ORIN_NANO, "commands": {"tensorrt": "10.3.0.30-1+cuda12.5"}})
    other = found({**ORIN_NANO, "commands": {"tensorrt": "10.7.0.23-1+cuda12.6"}})
    assert not any("is installed there" in each.text for each in same.trouble)
    assert other.trouble[-1].text.startswith("TensorRT 10.7.0 is installed there, JetPack 6.2 came with 10.3")


def test_a_gpu_at_another_clock_loses_the_peaks_of_the_stated_one() -> None:
    table = {"/sys/class/devfreq/17000000.gpu/available_frequencies": "306000000 612000000 1020000000\n"}
    stated = found({**ORIN_NANO, "files": ORIN_NANO["files"] | table})
    assert fact_number(stated, "gpu_clock_max") == 1020
    assert fact_number(stated, "gpu_peak_fp32") == pytest.approx(2089.0)
    table = dict.fromkeys(table, "306000000 624750000\n")
    slow = found({**ORIN_NANO, "files": ORIN_NANO["files"] | table})
    assert fact_number(slow, "gpu_clock_max") == 624.75
    assert not [fact.key for fact in slow.facts if fact.key.startswith("gpu_peak_")]


def test_cores_that_a_power_mode_switched_off_are_still_the_boards() -> None:
    report = machine([A78AE] * 4, model="NVIDIA Jetson AGX Orin Developer Kit", kilohertz=[1113600] * 4,
                     tegra=ORIN_TEGRA, commands={"nvpmodel": "NV Power Mode: MODE_15W\n1\n"})  # fmt: skip
    spec = found(report)
    (cluster,) = clusters(spec)
    assert (spec.cores, cluster.cores, cluster.clock_ghz) == (12, 12, pytest.approx(2.2016))
    mode = spec.default_power_mode()
    assert mode is not None and (mode.name, mode.cpu_cores) == ("MODE_15W", 4)


def test_big_and_little_cores_are_told_apart_fastest_first() -> None:
    spec = found(RK3588)
    assert [(c.core, c.cores, c.clock_ghz) for c in clusters(spec)] == [
        ("Cortex-A76", 4, 2.4), ("Cortex-A55", 4, 1.8),
    ]  # fmt: skip
    assert spec.cores == 8


def test_kinds_of_one_clock_come_with_the_more_numerous_first() -> None:
    tx2 = machine([A57, DENVER2, DENVER2, A57, A57, A57], model="quill", kilohertz=[2035200] * 6)
    assert [(c.core, c.cores) for c in clusters(found(tx2))] == [("Cortex-A57", 4), ("Denver 2", 2)]


def test_an_unknown_board_runs_onnxruntime_on_its_processor() -> None:
    server = machine([("0x41", "0xd0c", _ARMV82)] * 2, files=cache(0, 2, 2, "Unified", "1M", "0"))
    spec = found(server)
    assert (spec.name, spec.title, spec.runtime) == ("neoverse-n1-board", "aarch64", "onnxruntime")
    assert spec.arm is not None and (spec.arm.level, spec.arm.fp16) == ("8.2-A", True)
    assert fact_number(spec, "l2") == 1024
    assert fact_text(spec, "cpu_core") == "Neoverse-N1"
    odd = found(machine([("0x99", "0xfff", "fp asimd")] * 2))
    assert fact_text(odd, "cpu_core") == "Arm core 0x99/0xfff"


def test_x86_by_its_flags_and_the_clock_in_its_name() -> None:
    spec = found(X86)
    assert (spec.name, spec.scheme, spec.opset_max) == ("x86-64-avx2-b-ro-pc", "u8s8-reduce-range", 26)
    assert (fact_text(spec, "cpu_core"), fact_number(spec, "cpu_clock_max")) == ("x86-64 AVX2", 1.6)
    support = spec.runtime_support("onnxruntime")
    assert support is not None and support.int8 == "saturating"
    vnni = json.loads(json.dumps(X86).replace("fma", "fma avx512f avx512_vnni"))
    assert found(vnni).scheme == "u8s8"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"bits": 32},
            r"^board: Python there is a 32-bit program; got '32-bit aarch64'; install the board's 64",
        ),
        ({"machine": "armv7l"}, r"unknown architecture; got 'armv7l'; allowed: x86_64, aarch64"),
        ({"cores": 0}, r"^board: the machine's answer is not what the script prints; got '.*greater than"),
        ({"files": ["/etc/passwd"]}, r"^board: the machine's answer is not what the script prints"),
        ({"speed": {"cores": 4, "copy_all": float("inf")}}, r"the machine's answer is not what"),
    ],
)
def test_an_answer_that_makes_no_device_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        found({**PI4, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "bash: python3: not found", "[" * 100000, "[]", "null"])
def test_an_answer_that_is_no_report_is_one_line(text: str) -> None:
    with pytest.raises(
        DeviceError, match=r"^pi: the machine's answer is not what the script prints"
    ) as caught:
        parse_report(text, where="pi")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/proc/meminfo", "MemTotal: " + "9" * 5000 + " kB"),
        (f"{_CPU}0/cpufreq/cpuinfo_max_freq", "²"),
        ("/sys/class/devfreq/17000000.gpu/available_frequencies", "1" * 5000),
        (f"{_CPU}0/cache/index0/size", "7" * 5000 + "K"),
    ],
)
def test_figures_that_no_machine_has_are_one_line(path: str, text: str) -> None:
    strange = {**PI5, "files": {**PI5["files"], path: text}}
    with pytest.raises(DeviceError, match=r"^board: the machine's answer makes no device; got ") as caught:
        found(strange)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"^board: name: .*got '../x'"):
        found(PI4, name="../x")


def test_escape_sequences_of_a_board_do_not_reach_the_terminal() -> None:
    evil = machine([A72] * 4, model="Raspberry Pi 4 Model B\x1b[2J\nname: x")
    spec = found(evil)
    assert spec.title == "Raspberry Pi 4 Model B[2Jname: x"
    assert "\x1b" not in spec.to_yaml()


def test_the_script_is_python_3_6_and_standard_library() -> None:
    tree = ast.parse(probe_script(speed=True), feature_version=(3, 6))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names - {"numpy"} <= sys.stdlib_module_names  # numpy only where it is, for the rate of products
    assert "edgekd" not in {name.split(".")[0] for name in names}


def test_the_script_runs_here_and_gives_this_machine() -> None:
    spec = detect_device(speed=False)
    cpu = detect_cpu()
    assert (spec.arch, spec.cores, spec.scheme) == (cpu.arch, cpu.cores, cpu.scheme)
    assert spec.fact("memcpy_1t") is None
    report = parse_report(run_here(probe_script(speed=False)), where="here")
    assert cpu_from_text(dict(report.files), machine=report.machine, cores=report.cores) == cpu


def test_a_board_is_asked_by_whatever_runs_a_script_there() -> None:
    asked = []

    def over_ssh(script: str) -> str:
        asked.append(script)
        return json.dumps(PI4)

    assert detect_device(over_ssh, where="pi@board", name="kitchen").name == "kitchen"
    assert asked == [probe_script(speed=True)]
    assert not remembered(detect_cpu())  # what a board measured is not this machine's


def test_a_script_that_fails_here_is_one_line() -> None:
    with pytest.raises(DeviceError, match=r"^this machine: the script fails; got 'ValueError: no'$"):
        run_here("raise ValueError('no')")


def test_measured_rates_are_facts_that_say_how() -> None:
    speed = Speed(cores=4, load=0.5, copy_1core=2.33e9, copy_all=2.76e9, copy_buffer_all=2.0**25,
                  flops_1core=1.1958e10, flops_all=0.0)  # fmt: skip
    facts = {fact["key"]: fact for fact in speed_facts(speed)}
    assert {key: (fact["value"], fact["unit"]) for key, fact in facts.items()} == {
        "memcpy_1t": (2.33, "GB/s"), "stream_copy": (5.52, "GB/s"), "cpu_fp32_measured_1core": (12.0, "GFLOP/s"),
    }  # fmt: skip
    assert all(fact["source"].startswith("measured: ") for fact in facts.values())
    assert "each of 4 processes copies a buffer of 32 MiB" in facts["stream_copy"]["source"]
    spec = found({**PI4, "speed": speed.model_dump()})
    assert fact_number(spec, "stream_copy") == 5.52  # instead of the published figure
    assert spec.fact("cpu_fp32_measured") is None


def test_rates_taken_on_a_busy_machine_come_with_a_note() -> None:
    speed = Speed(cores=4, load=2.4, copy_1core=2e9)
    note = busy_note(found({**PI4, "speed": speed.model_dump()}))
    assert note is not None and "the load was 2.4 on 4 cores" in note
    quiet = found({**PI4, "speed": {**speed.model_dump(), "load": 1.9}})
    assert busy_note(quiet) is None and busy_note(found(PI4)) is None


def test_what_was_measured_here_stays_with_this_machine(tmp_path: Path) -> None:
    cpu = detect_cpu()
    facts = speed_facts(Speed(cores=2, copy_1core=7e9))
    path = remember(cpu, facts)
    assert fact_number(load_device("cpu"), "memcpy_1t") == 7.0
    path.write_text(path.read_text().replace(cpu.title, "another processor"))
    assert load_device("cpu").fact("memcpy_1t") is None
    path.write_text("{")
    assert load_device("cpu").fact("memcpy_1t") is None


def test_rates_of_several_processes_are_added_and_a_failure_is_no_rate(tmp_path: Path) -> None:
    def works(size: int, start: float) -> float:
        return 2.5 * size

    def fails(size: int, start: float) -> float:
        raise MemoryError

    def one_fails(size: int, start: float) -> float:
        (tmp_path / "first").touch(exist_ok=False)
        return 1.0

    assert device_probe.together(works, 3, 2) == 15.0
    assert device_probe.together(fails, 2, 2) == 0.0
    assert device_probe.together(one_fails, 2, 2) == 0.0


def test_the_rate_is_of_a_round_that_nothing_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = [0.0], iter([0.0, 0.1, 0.01, 0.01, 9.0, 0.01, 0.01])  # the first is the warm-up

    def work() -> None:
        clock[0] += next(waits)

    monkeypatch.setattr(device_probe.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(device_probe, "SECONDS", 9.0)
    assert device_probe.rate(work, 1.0, 0.0) == pytest.approx(100.0)


def test_a_kept_device_is_found_again_and_no_shipped_one_is_replaced() -> None:
    spec = found(PI4, name="kitchen")
    keep_device(spec)
    assert load_device("kitchen") == spec
    with pytest.raises(DeviceError, match=r"^name: a shipped device has this name; got 'raspberry-pi-4b'"):
        keep_device(found(PI4, name="raspberry-pi-4b"))
