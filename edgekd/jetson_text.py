"""What a Jetson says of its system: the JetPack, TensorRT, the clocks of its GPU. From recorded text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgekd.device_parts import JetPack
from edgekd.device_spec import DeviceSpec

_GPU_CLOCKS = re.compile(r"/sys/class/devfreq/[0-9a-f]+\.(gpu|ga10b|gv11b|gp10b|gm20b)/available_frequencies")


def under_its_jetpack(
    base: DeviceSpec, files: Mapping[str, str], commands: Mapping[str, str]
) -> tuple[DeviceSpec, list[dict[str, str]]]:
    """The board under the JetPack that runs there, and what is uncertain about it."""
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", files.get("/etc/nv_tegra_release", ""))
    if release is None or not base.jetpacks:
        return base, []
    l4t = f"{release[1]}.{release[2].rstrip('.')}"
    found = next((each for each in base.jetpacks if each.l4t == l4t), None)
    if found is not None:
        return base.with_jetpack(found.version), _other_tensorrt(commands, found)
    same = [each for each in base.jetpacks if each.l4t.split(".")[0] == release[1]]
    older = [each for each in same if _numbers(each.l4t) <= _numbers(l4t)]
    taken = (older or same or list(base.jetpacks))[-1]
    text = f"L4T {l4t} is not known here: treated as JetPack {taken.version} (TensorRT {taken.tensorrt})"
    return base.with_jetpack(taken.version), [
        {"text": text, "source": "read on the board: /etc/nv_tegra_release"}
    ]


def gpu_facts(files: Mapping[str, str], source: str) -> list[dict[str, Any]]:
    """The highest step of a Jetson GPU's clock table."""
    for path, text in files.items():
        if _GPU_CLOCKS.fullmatch(path):
            steps = [int(step) for step in text.split() if step.isdigit()]
            if steps:
                return [{"key": "gpu_clock_max", "value": max(steps) / 1e6, "unit": "MHz", "source": source}]
    return []


def _other_tensorrt(commands: Mapping[str, str], jetpack: JetPack) -> list[dict[str, str]]:
    installed = re.match(r"\d+\.\d+(\.\d+)?", commands.get("tensorrt", ""))
    if installed is None or _numbers(installed.group())[:2] == _numbers(jetpack.tensorrt)[:2]:
        return []
    text = (
        f"TensorRT {installed.group()} is installed there, JetPack {jetpack.version} came with "
        f"{jetpack.tensorrt}: opsets and operators are taken from the latter"
    )
    return [{"text": text, "source": "read on the board: dpkg-query libnvinfer-bin"}]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
