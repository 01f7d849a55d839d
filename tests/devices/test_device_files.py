"""Every shipped device file, and what a user's own file may get wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.cpu import CpuFacts, detect_cpu
from edgekd.device import DeviceSpec, add_device, check_opset, list_devices, load_device, parse_device
from edgekd.device_facts import fact_number
from edgekd.errors import DeviceError

SHIPPED = sorted(path.stem for path in (Path(__file__).parents[2] / "devices").glob("*.yaml"))

VALID = """\
name: my-board
title: My board
arch: aarch64
cores: 4
runtime: onnxruntime
runtime_version: "1.22"
opset_min: 7
opset_max: 21
opset_export: 17
scheme: u8s8
kernel_rule: arm
int8: true
sparse_2to4: false
memory_bytes: 1073741824
facts:
  - {key: cpu_clock_max, value: 1.8, unit: GHz, source: data sheet}
"""


@pytest.fixture(autouse=True)
def own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_the_boards_of_the_first_release_are_there() -> None:
    assert set(SHIPPED) == {
        "cpu", "x86-64-avx2", "x86-64-avx512-vnni", "raspberry-pi-zero-2w", "raspberry-pi-3b-plus",
        "raspberry-pi-4b", "raspberry-pi-5", "jetson-nano", "jetson-xavier-nx", "jetson-agx-xavier",
        "jetson-orin-nano", "jetson-orin-nano-super", "jetson-orin-nx-16gb", "jetson-agx-orin", "jetson-tx2",
        "rk3399", "rk3588", "khadas-vim4", "odroid-n2plus",
    }  # fmt: skip
    assert list_devices() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_file_loads_under_its_own_name_and_every_fact_has_a_source(name: str) -> None:
    spec = load_device(name)
    assert spec.name == name
    assert all(fact.source.strip() for fact in spec.facts)
    assert spec.facts


@pytest.mark.parametrize("name", SHIPPED)
def test_yaml_round_trip(name: str) -> None:
    spec = load_device(name)
    assert parse_device(spec.to_yaml(), where=name) == spec


def test_two_to_four_is_for_ampere_alone() -> None:
    sparse = {name for name in SHIPPED if load_device(name).sparse_2to4}
    assert sparse == {
        "jetson-orin-nano", "jetson-orin-nano-super", "jetson-orin-nx-16gb", "jetson-agx-orin",
    }  # fmt: skip


def test_figures_carry_over_with_unit_and_source() -> None:
    fact = load_device("raspberry-pi-4b").fact("stream_copy")
    assert fact is not None
    assert (fact.value, fact.unit) == (5527.3, "MB/s")
    assert "sci-pi.org.uk" in fact.source


def test_schemes_follow_the_runtime() -> None:
    assert load_device("raspberry-pi-5").scheme == "u8s8"
    assert load_device("x86-64-avx2").scheme == "u8s8-reduce-range"
    assert load_device("jetson-agx-orin").scheme == "s8s8"
    assert not load_device("jetson-nano").int8


def test_opset_above_the_boards_runtime_is_refused() -> None:
    nano = load_device("jetson-nano")
    check_opset(nano, nano.opset_export)
    with pytest.raises(
        DeviceError,
        match=r"^device jetson-nano: its TensorRT 8\.2\.1 of JetPack 4\.6\.1 cannot take the opset; got 17;.*opset 13$",
    ):
        check_opset(nano, 17)


@pytest.mark.parametrize(
    ("name", "hint"), [("raspbery-pi-4b", "'raspberry-pi-4b'"), ("jetson-oran-nano", "'jetson-orin-nano'")]
)
def test_unknown_device_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(DeviceError, match=f"did you mean {hint}"):
        load_device(name)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("arch: aarch64", "arch: arm", r"arch: not a known value; got 'arm'; allowed: 'x86_64' or 'aarch64'"),
        ("cores: 4", "cores: 0", r"cores: .*greater than or equal to 1; got 0"),
        ("cores: 4", "coers: 4", r"coers: unknown key; got 'coers'; did you mean 'cores'\?"),
        ("arch: aarch64\n", "", r"arch: is missing"),
        ("cores: 4\n", "", r"cores: is missing"),
        ("unit: GHz, ", "", r"facts\[0\]\.unit: is missing for 'cpu_clock_max'; see"),
        (", source: data sheet", "", r"facts\[0\]\.source: is missing for 'cpu_clock_max'"),
        (
            "facts:",
            "power_modes: [{name: 5W, cpu_cores: 2, source: s}]\nfacts:",
            r"power_modes\[0\]\.cpu_clock_ghz: is missing for '5W'",
        ),
        (
            "facts:",
            "power_modes: [{name: 5W, cpu_cores: 2, cpu_clock_ghz: 1479, source: s}]\nfacts:",
            r"power_modes\[0\]\.cpu_clock_ghz: .*less than 10; got 1479",
        ),
        (
            "facts:",
            "jetpacks: [{verison: '6.2'}]\nfacts:",
            r"verison: unknown key; got 'verison'; did you mean 'version'",
        ),
        ("facts:", "jetpack: '6.2'\nfacts:", r"jetpack: not one of jetpacks; got '6.2'; allowed: none"),
        (
            "facts:",
            "arm: {level: 8.3-A, dotprod: true, fp16: true, source: s}\nfacts:",
            r"arm\.level: not a known value; got '8.3-A'; allowed: '8.0-A', ",
        ),
        (
            "facts:",
            "runtimes: [{name: tflite, int8: maybe, fp16: true, source: s}]\nfacts:",
            r"runtimes\[0\]\.int8: not a known value; got 'maybe'; allowed: 'none', ",
        ),
        ("value: 1.8", "value: [1, 2]", r"facts\[0\]\.value: .*got \[1, 2\]"),
        ("value: 1.8", "value: .nan", r"facts\[0\]\.value: not a figure; got nan; allowed: a number, a text"),
        ("facts:", "jetpacks: 3\nfacts:", r"jetpacks: of the wrong kind; got 3; allowed: a list"),
        ("facts:", "jetpacks: [3]\nfacts:", r"jetpacks\[0\]: of the wrong kind; got 3; allowed: a mapping"),
        ("opset_export: 17", "opset_export: 25", r"opset_export must lie between"),
        ("runtime: onnxruntime", "runtime: tensorrt", r"scheme must be s8s8"),
        ("cores: 4", "cores: [", r"line \d+: not YAML"),
        ("name: my-board", "name: ../my", r"name: not a name; got '\.\./my'; allowed: small letters, digits"),
        ('runtime_version: "1.22"', "runtime_version: 1.20x", r"runtime_version: not a version; got '1.20x'"),
        ('runtime_version: "1.22"', "runtime_version: 1.20", r"not a text; got 1.2; write it in quotes"),
    ],
)
def test_a_wrong_file_is_one_line_with_key_value_and_what_is_allowed(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    file = tmp_path / "board.yaml"
    assert before in VALID
    file.write_text(VALID.replace(before, after))
    with pytest.raises(DeviceError, match=message) as caught:
        load_device(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_an_added_device_is_found_by_name(tmp_path: Path) -> None:
    file = tmp_path / "board.yaml"
    file.write_text(VALID)
    added = add_device(file)
    file.unlink()
    assert "my-board" in list_devices()
    assert load_device("my-board") == added == DeviceSpec.model_validate(added.model_dump())


def test_a_shipped_name_cannot_be_taken(tmp_path: Path) -> None:
    file = tmp_path / "board.yaml"
    file.write_text(VALID.replace("my-board", "raspberry-pi-4b"))
    with pytest.raises(DeviceError, match="a shipped device has this name"):
        add_device(file)
    assert not list((tmp_path / "config").rglob("*.yaml"))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="cannot be read; got 'No such file"):
        load_device("nowhere/board.yaml")


def _fake_root(root: Path, cpuinfo: str) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    (root / "proc/meminfo").write_text("MemTotal:        1024 kB\nMemFree: 1 kB\n")
    cache = root / "sys/devices/system/cpu/cpu0/cache/index2"
    cache.mkdir(parents=True)
    for name, text in {"level": "2\n", "type": "Unified\n", "size": "512K\n"}.items():
        (cache / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("machine", "flag_line", "scheme"),
    [
        ("x86_64", "flags : fpu avx2", "u8s8-reduce-range"),
        ("x86_64", "flags : fpu avx2 avx512_vnni", "u8s8"),
        ("x86_64", "flags : fpu avx2 avx_vnni", "u8s8"),
        ("aarch64", "Features : fp asimd", "u8s8"),
    ],
)
def test_detection_decides_the_scheme_by_vnni(
    tmp_path: Path, machine: str, flag_line: str, scheme: str
) -> None:
    root = _fake_root(tmp_path / "root", f"processor : 0\nmodel name : Some CPU\n{flag_line}\n")
    cpu = detect_cpu(root, machine=machine, cores=2)
    assert cpu.scheme == scheme
    assert (cpu.cores, cpu.memory_bytes, cpu.caches) == (2, 1024 * 1024, {"L2": 512 * 1024})


def test_the_cpu_device_is_this_machine() -> None:
    spec, cpu = load_device("cpu"), detect_cpu()
    assert (spec.arch, spec.cores, spec.scheme) == (cpu.arch, cpu.cores, cpu.scheme)
    assert spec.kernel_rule == ("x86" if cpu.arch == "x86_64" else "arm")


def test_an_unreadable_machine_still_gives_a_description() -> None:
    cpu = CpuFacts(title="?", arch="x86_64", cores=1, flags=frozenset(), caches={}, memory_bytes=0)
    assert cpu.scheme == "u8s8-reduce-range"


def test_an_unknown_architecture_is_one_line() -> None:
    with pytest.raises(DeviceError, match="cpu: unknown architecture; got 'riscv64'"):
        detect_cpu(machine="riscv64")


def test_a_known_fact_is_read_in_its_own_unit() -> None:
    mhz = parse_device(VALID.replace("value: 1.8, unit: GHz", "value: 1800, unit: MHz"), where="f")
    assert fact_number(mhz, "cpu_clock_max") == pytest.approx(1.8)
    assert fact_number(mhz, "mem_bw_theoretical") is None


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("unit: GHz", "unit: GiB", r"facts\[0\]: not a unit of cpu_clock_max; got 'GiB'; allowed: GHz, MHz"),
        ("value: 1.8", "value: fast", r"facts\[0\]: the value of cpu_clock_max is not a number; got 'fast'"),
        ("value: 1.8", "value: -1", r"facts\[0\]: the value of cpu_clock_max is out of range; got -1"),
    ],
)
def test_a_figure_that_edgekd_computes_with_has_a_fitting_unit(before: str, after: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        parse_device(VALID.replace(before, after), where="board.yaml")
    assert str(caught.value).startswith("board.yaml: ") and "\n" not in str(caught.value)
