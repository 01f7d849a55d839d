"""From what a machine says of itself (:mod:`edgekd.device_probe`) to its description.

A board whose device tree names one that edgekd knows keeps that one's sourced figures: power modes, JetPacks
and GPU rates cannot be read on the board. What was read or measured there takes their place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd.cpu import CpuFacts, cpu_from_text, runtime_opset
from edgekd.device import first_problem
from edgekd.device_facts import fact_number
from edgekd.device_spec import DeviceSpec
from edgekd.errors import DeviceError, fault
from edgekd.jetson_text import gpu_facts, under_its_jetpack
from edgekd.machine_speed import Speed, speed_facts
from edgekd.runtime_support import arm_level, cpu_runtimes

_MOST_TEXT = 1 << 22
_OPSET_SOURCE = "onnxruntime.ai/docs/reference/compatibility.html; newer releases measured"
# What was derived from a clock: not the shipped figure on a board that runs at another one.
_BY_CLOCK = {"cpu_clock_max": ("cpu_peak_",), "gpu_clock_max": ("gpu_peak_", "ai_perf_")}


class ProbeReport(BaseModel):
    """What the script printed. It may come from any machine: nothing in it is trusted to be well-formed."""

    model_config = ConfigDict(frozen=True)

    machine: str = Field(min_length=1, max_length=40)
    bits: int
    host: str = ""
    cores: int = Field(ge=1, le=4096)
    python: str = ""
    packages: Mapping[str, str] = {}
    files: Mapping[str, str]
    commands: Mapping[str, str] = {}
    speed: Speed | None = None


def parse_report(text: str, *, where: str) -> ProbeReport:
    """The script's output, checked.

    Raises:
        DeviceError: it is not what the script prints; one line.
    """
    try:
        return ProbeReport.model_validate(json.loads(text[:_MOST_TEXT]))
    except (ValueError, RecursionError) as error:  # pydantic's errors are ValueErrors too
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not JSON"
        what = "the machine's answer is not what the script prints"
        raise DeviceError(fault(where, what, got=problem, fix="try again")) from None


def describe(report: ProbeReport, known: Iterable[DeviceSpec], *, where: str, name: str = "") -> DeviceSpec:
    """The machine as a device.

    Args:
        known: descriptions that the machine may be one of.
        where: begins an error, such as the host's name.
        name: of the new device; by default made from the board's and the host's.

    Raises:
        DeviceError: an architecture without a runtime, or figures that no machine has; one line.
    """
    try:
        return DeviceSpec.model_validate(_fields(report, known, where=where, name=name))
    except ValidationError as error:
        raise DeviceError(first_problem(error, where)) from None
    except (ValueError, OverflowError) as error:  # digits without end, and the like
        what = "the machine's answer makes no device"
        raise DeviceError(fault(where, what, got=str(error)[:100])) from None


def _fields(report: ProbeReport, known: Iterable[DeviceSpec], *, where: str, name: str) -> dict[str, Any]:
    if report.bits != 64:
        what, fix = "Python there is a 32-bit program", "install the board's 64-bit system"
        raise DeviceError(fault(where, what, got=f"{report.bits}-bit {report.machine}", fix=fix))
    cpu = cpu_from_text(dict(report.files), machine=report.machine, cores=report.cores)
    read = f"read on {_plain(report.host) or 'the machine'}: /proc, /sys"
    base = _closest(report, known)
    found = [*cpu.facts(read), *gpu_facts(report.files, read), *speed_facts(report.speed)]
    if base is None:
        fields = _alone(cpu, report, read)
    else:
        fields = _known_board(base, cpu, report)
        found = _where_all_is_on(found, base, cpu)
    given = {fact["key"] for fact in found}
    stale = _outdated(base, found) if base else ()
    kept = [f for f in fields.pop("facts") if f["key"] not in given and not f["key"].startswith(stale)]
    return fields | {"name": name or _name(base, cpu, report.host), "models": (), "facts": [*found, *kept]}


def _closest(report: ProbeReport, known: Iterable[DeviceSpec]) -> DeviceSpec | None:
    """The board with the longest pattern that the machine's device tree fits."""
    tree = report.files.get("/proc/device-tree/compatible", "").split("\0")
    names = [report.files.get("/proc/device-tree/model", "").strip("\0\n "), *tree]
    fits = [
        (len(pattern), spec)
        for spec in known
        for pattern in spec.models
        if any(fnmatchcase(name, pattern) for name in names if name)
    ]
    return max(fits, key=lambda fit: fit[0])[1] if fits else None


def _alone(cpu: CpuFacts, report: ProbeReport, read: str) -> dict[str, Any]:
    """A machine that no description fits: ONNX Runtime on its processor."""
    version = _onnxruntime(report) or "1.20"
    opset = runtime_opset(version) or 21
    fields = cpu.device_fields(source=read, runtime_version=version)
    opset_fact = {"key": "opset_max", "value": opset, "unit": "opset", "source": _OPSET_SOURCE}
    return {
        **fields,
        "title": _plain(fields["title"]) or cpu.arch,
        "runtime": "onnxruntime", "opset_min": 7, "opset_max": opset, "opset_export": min(20, opset),
        "int8": True, "sparse_2to4": False,
        "arm": arm_level(cpu.flags, read) if cpu.arch == "aarch64" else None,
        "runtimes": cpu_runtimes(cpu.arch, cpu.flags, version, opset),
        "facts": [opset_fact],
    }  # fmt: skip


def _known_board(base: DeviceSpec, cpu: CpuFacts, report: ProbeReport) -> dict[str, Any]:
    spec, trouble = under_its_jetpack(base, report.files, report.commands)
    fields = spec.model_dump()
    fields |= {
        "title": _plain(cpu.title) or base.title,
        "memory_bytes": cpu.memory_bytes or base.memory_bytes,
    }
    fields["trouble"] = [*fields["trouble"], *trouble]
    if (
        base.runtime == "onnxruntime"
        and (version := _onnxruntime(report))
        and (opset := runtime_opset(version))
    ):
        fields |= {"runtime_version": version, "opset_max": opset, "opset_export": min(20, opset)}
        fields["runtimes"] = cpu_runtimes(cpu.arch, cpu.flags, version, opset)
        fields["facts"] = [fact for fact in fields["facts"] if fact["key"] != "opset_max"]
    mode = re.search(r"NV Power Mode: ?(\S+)", report.commands.get("nvpmodel", ""))
    if mode and any(each["name"] == mode[1] for each in fields["power_modes"]):
        fields["power_modes"] = [
            {**each, "default": each["name"] == mode[1]} for each in fields["power_modes"]
        ]
    return fields


def _where_all_is_on(found: list[dict[str, Any]], base: DeviceSpec, cpu: CpuFacts) -> list[dict[str, Any]]:
    """Without the counts where a power mode has switched cores off: the board still has them."""
    if sum(kind.cores for kind in cpu.kinds) >= base.cores:
        return found
    hidden = ("cpu_cores", "l2_shared_by", "cpu_core", "cpu_clock_max")
    return [fact for fact in found if not fact["key"].startswith(hidden)]


def _outdated(base: DeviceSpec, found: list[dict[str, Any]]) -> tuple[str, ...]:
    """Prefixes of shipped figures that were derived from another clock than the machine's."""
    prefixes: list[str] = []
    for fact in found:
        stated = fact_number(base, fact["key"]) if fact["key"] in _BY_CLOCK else None
        if stated and abs(fact["value"] - stated) > 0.02 * stated:
            prefixes += _BY_CLOCK[fact["key"]]
    return tuple(prefixes)


def _name(base: DeviceSpec | None, cpu: CpuFacts, host: str) -> str:
    core = cpu.kinds[0].core if cpu.kinds else cpu.arch
    words = f"{base.name if base else core} {host}".lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:60].rstrip("-") or "machine"


def _onnxruntime(report: ProbeReport) -> str:
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"):
        if found := re.match(r"\d+(\.\d+)+", report.packages.get(name, "")):
            return found.group()
    return ""


def _plain(text: str) -> str:
    """Text from another machine, fit for a terminal."""
    return "".join(letter for letter in text if letter.isprintable()).strip()[:100]
