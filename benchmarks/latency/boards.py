"""The hardware behind each row of ``published.csv``: device files, ``boards.yaml``, clocks that a row states."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from edgekd.device import DeviceSpec, list_devices, load_device
from edgekd.device_facts import known_key

_FILE = Path(__file__).with_name("boards.yaml")
# Another name for a board, or the board that a row's is a variant of.
_SAME = {
    "orangepi5-rk3588s": "rk3588", "firefly-rk3588s": "rk3588", "raspberry-pi-5-oc2.9": "raspberry-pi-5",
    "jetson-agx-orin-devkit-32gb": "jetson-agx-orin", "raspberry-pi-3b-plus": "raspberry-pi-3b-plus",
}  # fmt: skip
# What a board's row changes in the facts of the one it is a variant of.
_VARIANT: dict[str, dict[str, Any]] = {
    "raspberry-pi-5-oc2.9": {"cpu_clock_max": 2.9},
    "jetson-orin-nano-super": {"gpu_clock_max": 1020, "mem_bw_theoretical": 102, "cpu_clock_max": 1.728},
}
_OF = {"jetson-orin-nano-super": "jetson-orin-nano"}
_CLOCK = re.compile(r"@(\d+(?:\.\d+)?)GHz")


@cache
def _file() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return document


@cache
def board(device: str, soc: str = "") -> DeviceSpec:
    """The description of a row's board. ``soc`` may state another clock than the board's file.

    Raises:
        KeyError: nobody wrote this board down.
    """
    name = _SAME.get(device, device)
    if name in list_devices():
        spec = load_device(name)
    elif name in _file():
        spec = _spec(name, **_file()[name])
    else:
        spec = load_device(_OF[name])
    changes = dict(_VARIANT.get(device, {})) if name not in list_devices() or device != name else {}
    stated = _CLOCK.findall(soc)
    if len(stated) == 1 and "GPU" not in soc and spec.fact("cpu_core_2") is None:
        changes.setdefault("cpu_clock_max", float(stated[0]))
    return _with(spec, device, changes)


def _spec(name: str, arch: str, cores: int, source: str, facts: dict[str, Any]) -> DeviceSpec:
    return DeviceSpec.model_validate(
        {
            "name": name.lower(),
            "title": name,
            "arch": arch,
            "cores": cores,
            "runtime": "onnxruntime",
            "runtime_version": "1.20",
            "opset_min": 7,
            "opset_max": 21,
            "opset_export": 20,
            "scheme": "u8s8",
            "kernel_rule": "x86" if arch == "x86_64" else "arm",
            "int8": True,
            "sparse_2to4": False,
            "memory_bytes": 2**30,
            "facts": [_fact(key, value, source) for key, value in facts.items()],
        }
    )


def _fact(key: str, value: Any, source: str) -> dict[str, Any]:
    known = known_key(key)
    assert known is not None, key
    return {"key": key, "value": value, "unit": known.unit or "", "source": source}


def _with(spec: DeviceSpec, device: str, changes: dict[str, Any]) -> DeviceSpec:
    document = spec.model_dump()
    kept = [fact for fact in document["facts"] if fact["key"] not in changes]
    changed = [_fact(key, value, "the row") for key, value in changes.items()]
    return DeviceSpec.model_validate({**document, "name": device.lower(), "facts": [*changed, *kept]})
