"""Recorded texts of real machines, in the form that these boards' kernels print; serial numbers are left out."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.device import load_device, parse_device
from edgekd.device_detect import describe, parse_report
from edgekd.device_spec import DeviceSpec

A72 = ("0x41", "0xd08", "fp asimd evtstrm crc32 cpuid")
_ARMV82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
A76 = ("0x41", "0xd0b", _ARMV82)
A55 = ("0x41", "0xd05", _ARMV82)
A78AE = ("0x41", "0xd42", _ARMV82 + " uscat ilrcpc flagm")
A57 = ("0x41", "0xd07", "fp asimd evtstrm aes pmull sha1 sha2 crc32")
DENVER2 = ("0x4e", "0x003", "fp asimd evtstrm aes pmull sha1 sha2 crc32")
_CPU = "/sys/devices/system/cpu/cpu"


def _arm_cpuinfo(cores: list[tuple[str, str, str]], tail: str = "") -> str:
    blocks = [
        f"processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {flags}\nCPU implementer\t: {implementer}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n"
        for number, (implementer, part, flags) in enumerate(cores)
    ]
    return "\n".join(blocks) + "\n" + tail


def _machine(
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
        "/proc/cpuinfo": _arm_cpuinfo(cores, f"Model\t\t: {model}\n" if model else ""),
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


def _cache(cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> dict[str, str]:
    here = f"{_CPU}{cpu}/cache/index{index}"
    return {f"{here}/level": f"{level}\n", f"{here}/type": f"{kind}\n", f"{here}/size": f"{size}\n",
            f"{here}/shared_cpu_list": f"{shared}\n"}  # fmt: skip


def _found(report: dict[str, Any], **more: str) -> DeviceSpec:
    spec = describe(parse_report(json.dumps(report), where="board"), _shipped(), where="board", **more)
    assert parse_device(spec.to_yaml(), where="its own file") == spec
    return spec


PI4 = _machine(
    [A72] * 4, model="Raspberry Pi 4 Model B Rev 1.4", compatible="raspberrypi,4-model-b brcm,bcm2711",
    kilohertz=[1800000] * 4, packages={"onnxruntime": "1.22.1", "numpy": "2.2.6"},
)  # fmt: skip
PI5 = _machine(
    [A76] * 4, model="Raspberry Pi 5 Model B Rev 1.0", compatible="raspberrypi,5-model-b brcm,bcm2712",
    kilohertz=[2400000] * 4, memory_kb=8256000,
    files=_cache(0, 0, 1, "Data", "64K", "0") | _cache(0, 2, 2, "Unified", "512K", "0")
    | _cache(0, 3, 3, "Unified", "2048K", "0-3"),
)  # fmt: skip
ORIN_TEGRA = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8\n"
)
ORIN_NANO = _machine(
    [A78AE] * 6, model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    compatible="nvidia,p3768-0000+p3767-0005-super nvidia,p3767-0005 nvidia,tegra234", kilohertz=[1728000] * 6,
    memory_kb=7802728, tegra=ORIN_TEGRA, commands={"nvpmodel": "NV Power Mode: MAXN_SUPER\n2\n"},
)  # fmt: skip
RK3588 = _machine(
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


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def boards() -> SimpleNamespace:
    """What the script printed on each of them; its tests leave it as it is."""
    return SimpleNamespace(
        pi4=PI4, pi5=PI5, orin_nano=ORIN_NANO, rk3588=RK3588, x86=X86, orin_tegra=ORIN_TEGRA
    )


@pytest.fixture
def cores() -> SimpleNamespace:
    """Implementer, part and flags of a core, as /proc/cpuinfo has them."""
    return SimpleNamespace(
        a72=A72, a76=A76, a55=A55, a78ae=A78AE, a57=A57, denver2=DENVER2, armv82_flags=_ARMV82
    )


@pytest.fixture
def machine() -> Callable[..., dict[str, Any]]:
    """What the script would print on a machine with these cores."""
    return _machine


@pytest.fixture
def cache() -> Callable[..., dict[str, str]]:
    """The files in which the kernel describes one cache."""
    return _cache


@pytest.fixture
def found() -> Callable[..., DeviceSpec]:
    """The device that a report makes; its file says the same."""
    return _found
