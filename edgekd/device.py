"""Boards as data: what a device is, what its runtime takes, and where each figure comes from.

One YAML file describes one board. edgekd ships some (``devices/*.yaml``); a user's own stand in
``$XDG_CONFIG_HOME/edgekd/devices`` or anywhere else, named by path. ``cpu`` is the machine at hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from edgekd.artifact import write_text
from edgekd.cpu import CpuFacts, detect_cpu
from edgekd.device_defaults import filled_keys
from edgekd.device_limits import check_operators, check_opset
from edgekd.device_parts import ArmLevel, Fact, JetPack, PowerMode, RuntimeSupport, Trouble
from edgekd.device_spec import DeviceSpec
from edgekd.errors import DeviceError, fault, nearest
from edgekd.machine_speed import remembered
from edgekd.runtime_support import arm_level, cpu_runtimes
from edgekd.yaml_text import load_yaml

__all__ = [
    "DeviceSpec", "Fact", "add_device", "check_operators", "check_opset", "first_problem", "keep_device",
    "list_devices", "load_device", "load_devices", "parse_device", "user_devices_dir",
]  # fmt: skip
_SEE = "see: edgekd devices show cpu --yaml"
_PARTS: dict[str, type[BaseModel]] = {
    "facts": Fact, "arm": ArmLevel, "power_modes": PowerMode, "jetpacks": JetPack,
    "runtimes": RuntimeSupport, "trouble": Trouble,
}  # fmt: skip


def user_devices_dir() -> Path:
    """Where the user's own device files stand."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "edgekd" / "devices"


def list_devices() -> list[str]:
    """Every name that :func:`load_device` knows: shipped boards, then the user's own."""
    shipped = sorted(_shipped())
    return shipped + sorted(
        path.stem for path in user_devices_dir().glob("*.yaml") if path.stem not in shipped
    )


def load_devices() -> tuple[list[DeviceSpec], list[str]]:
    """Every known device, and one line for each of the user's files that is wrong."""
    specs, problems = [], []
    for name in list_devices():
        try:
            specs.append(load_device(name))
        except DeviceError as error:
            problems.append(str(error))
    return specs, problems


def load_device(name_or_path: str | Path) -> DeviceSpec:
    """The description behind a device's name or a device file's path.

    Raises:
        DeviceError: no such device or file, or the file is wrong; one line.
    """
    text = str(name_or_path)
    name, at, version = text.rpartition("@")
    if at and name in list_devices():
        return load_device(name).with_jetpack(version)
    if isinstance(name_or_path, Path) or text.endswith((".yaml", ".yml")) or os.sep in text:
        return _from_file(Path(text))
    shipped = _shipped()
    if text in shipped:
        spec = parse_device(shipped[text].read_text(encoding="utf-8"), where=f"devices/{text}.yaml")
        return _at_hand(spec, detect_cpu()) if text == "cpu" else spec
    if text in list_devices():
        return _from_file(user_devices_dir() / f"{text}.yaml")
    fix = f"{nearest(text, list_devices())}; list them: edgekd devices list"
    raise DeviceError(fault("device", "is unknown", got=text, fix=fix))


def parse_device(text: str, *, where: str) -> DeviceSpec:
    """A device file's text to a :class:`DeviceSpec`; every problem is one line that starts with ``where``."""
    document = _document(text, where)
    try:
        return DeviceSpec.model_validate(document)
    except ValidationError as error:
        raise DeviceError(first_problem(error, where)) from None


def left_out(file: Path) -> dict[str, Any]:
    """What a readable device file does not say, and what is taken for it."""
    return filled_keys(_document(file.read_text(encoding="utf-8"), str(file)))


def _document(text: str, where: str) -> Mapping[str, Any]:
    try:
        document = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        spot = f"{where}: line {mark.line + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise DeviceError(fault(spot, "not YAML", got=problem)) from None
    if not isinstance(document, Mapping):
        raise DeviceError(fault(where, "not a mapping", got=type(document).__name__, fix=_SEE))
    return document


def add_device(file: Path) -> DeviceSpec:
    """Validate a device file and copy it to the user's devices.

    Raises:
        DeviceError: the file is wrong, or a shipped board has its name.
    """
    spec = _from_file(file)
    keep_device(spec, text=file.read_text(encoding="utf-8"), where=f"{file}: name")
    return spec


def keep_device(spec: DeviceSpec, *, text: str | None = None, where: str = "name") -> Path:
    """Write a description among the user's devices and return its path.

    Args:
        text: of the file; by default what :meth:`DeviceSpec.to_yaml` gives.
        where: begins an error.

    Raises:
        DeviceError: a shipped board has its name.
    """
    if spec.name in _shipped():
        what = "a shipped device has this name"
        raise DeviceError(fault(where, what, got=spec.name, fix="choose another name"))
    path = user_devices_dir() / f"{spec.name}.yaml"
    write_text(path, text or spec.to_yaml())
    return path


def _shipped() -> dict[str, Any]:
    files = resources.files("edgekd.devices").iterdir()
    return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}


def _from_file(path: Path) -> DeviceSpec:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "not UTF-8 text"
        what = "the device file cannot be read"
        raise DeviceError(fault(str(path), what, got=reason, fix="see: edgekd devices list")) from None
    return parse_device(text, where=str(path))


def _at_hand(spec: DeviceSpec, cpu: CpuFacts) -> DeviceSpec:
    """``cpu.yaml`` with what this machine says of itself."""
    base = spec.model_dump()
    found = {key: value for key, value in cpu.device_fields().items() if value}
    facts = [*found["facts"], *remembered(cpu)]
    given = {fact["key"] for fact in facts}
    # The file's highest opset is that of an older runtime.
    if found.get("opset_max", spec.opset_max) != spec.opset_max:
        given.add("opset_max")
    found["facts"] = [*facts, *(fact for fact in base["facts"] if fact["key"] not in given)]
    version, opset = (
        found.get("runtime_version", spec.runtime_version),
        found.get("opset_max", spec.opset_max),
    )
    found["runtimes"] = cpu_runtimes(cpu.arch, cpu.flags, version, opset)
    if cpu.arch == "aarch64":
        found["arm"] = arm_level(cpu.flags, "read from this machine: /proc/cpuinfo")
    return DeviceSpec.model_validate({**base, **found})


def first_problem(error: ValidationError, where: str) -> str:
    """The first thing that is wrong with a description, on one line."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    # The member of a union that pydantic tried is no part of the user's file.
    location = [part for part in problem["loc"] if part not in ("bool", "int", "float", "str")]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    spot = f"{where}: {path}" if path else where
    if problem["type"] == "extra_forbidden":
        part = _PARTS.get(str(location[0])) if len(location) > 1 else None
        known = (part or DeviceSpec).model_fields
        return fault(spot, "unknown key", got=location[-1], fix=nearest(str(location[-1]), known))
    if problem["type"] == "missing":
        entry = problem["input"] if isinstance(problem["input"], Mapping) else {}
        named = next(
            (str(entry[key]) for key in ("key", "name", "version") if location[1:] and key in entry), None
        )
        return fault(spot, f"is missing for {named!r}" if named else "is missing", fix=_SEE)
    if problem["type"] == "value_error":
        return fault(spot, problem["msg"].removeprefix("Value error, "))
    if "expected" in problem.get("ctx", {}):
        return fault(spot, "not a known value", got=problem["input"], allowed=str(problem["ctx"]["expected"]))
    if location[-1:] == ["value"]:
        return fault(spot, "not a figure", got=problem["input"], allowed="a number, a text, true or false")
    if problem["type"] == "string_type":  # YAML reads 1.20 as a number
        return fault(spot, "not a text", got=problem["input"], fix="write it in quotes")
    if problem["type"] == "string_pattern_mismatch":
        is_name = location[-1:] == ["name"]
        allowed = "small letters, digits, '.', '_' and '-'" if is_name else "a version such as 10.3"
        return fault(
            spot, "not a name" if is_name else "not a version", got=problem["input"], allowed=allowed
        )
    kinds = {"tuple_type": "a list", "model_type": "a mapping"}
    if problem["type"] in kinds:
        return fault(spot, "of the wrong kind", got=problem["input"], allowed=kinds[problem["type"]])
    return fault(spot, problem["msg"], got=problem["input"])
