"""Boards as data: what a device is, what its runtime takes, and where each figure comes from.

One YAML file describes one board. edgekd ships some (``devices/*.yaml``); a user's own stand in
``$XDG_CONFIG_HOME/edgekd/devices`` or anywhere else, named by path. ``cpu`` is the machine at hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgekd.artifact import write_text
from edgekd.cpu import CpuFacts, detect_cpu
from edgekd.errors import DeviceError, fault, nearest

# The C loader is ten times faster and not always built.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SEE = "see: edgekd devices show cpu --yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fact(_Strict):
    """One figure about a board. ``unit`` must be written, and may be empty for what has none."""

    key: str = Field(min_length=1)
    value: bool | int | float | str
    unit: str
    source: str = Field(min_length=1)


class DeviceSpec(_Strict):
    """A board's description.

    Attributes:
        opset_max: the highest ONNX opset that the board's runtime loads; a newer file is refused.
        opset_export: the opset that edgekd writes for this board.
        scheme: how activations are quantized: ``u8s8`` (uint8 x int8), ``u8s8-reduce-range`` (7-bit weights,
            for x86 without VNNI), ``s8s8`` (symmetric, zero point 0, for TensorRT).
        kernel_rule: which of ONNX Runtime's fusion rules the kernel-coverage gate reads the file under.
        int8: the runtime has int8 kernels on this hardware.
        sparse_2to4: runtime and hardware both make use of 2:4 weights.
        memory_bytes: of the smallest variant sold.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = Field(min_length=1)
    arch: Literal["x86_64", "aarch64"]
    cores: int = Field(ge=1)
    runtime: Literal["onnxruntime", "tensorrt"]
    runtime_version: str = Field(pattern=r"^\d+(\.\d+)*$")
    opset_min: int = Field(ge=7)
    opset_max: int
    opset_export: int
    scheme: Literal["u8s8", "u8s8-reduce-range", "s8s8"]
    kernel_rule: Literal["x86", "arm"]
    int8: bool
    sparse_2to4: bool
    memory_bytes: int = Field(gt=0)
    facts: tuple[Fact, ...]

    @model_validator(mode="after")
    def _consistent(self) -> DeviceSpec:
        if not self.opset_min <= self.opset_export <= self.opset_max:
            raise ValueError("opset_export must lie between opset_min and opset_max")
        if self.runtime == "tensorrt" and self.scheme != "s8s8":
            raise ValueError("scheme must be s8s8: TensorRT takes symmetric int8 alone")
        if self.scheme == "u8s8-reduce-range" and self.arch != "x86_64":
            raise ValueError("scheme u8s8-reduce-range is for x86_64 without VNNI")
        keys = [fact.key for fact in self.facts]
        if repeated := next((key for key in keys if keys.count(key) > 1), None):
            raise ValueError(f"facts: {repeated!r} stands twice")
        return self

    def fact(self, key: str) -> Fact | None:
        return next((fact for fact in self.facts if fact.key == key), None)

    def to_yaml(self) -> str:
        """The whole description, in the form that :func:`load_device` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


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


def load_device(name_or_path: str | Path) -> DeviceSpec:
    """The description behind a device's name or a device file's path.

    Raises:
        DeviceError: no such device or file, or the file is wrong; one line.
    """
    text = str(name_or_path)
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
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  (a safe loader, see above)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        spot = f"{where}: line {mark.line + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise DeviceError(fault(spot, "not YAML", got=problem)) from None
    if not isinstance(document, Mapping):
        raise DeviceError(fault(where, "not a mapping", got=type(document).__name__, fix=_SEE))
    try:
        return DeviceSpec.model_validate(document)
    except ValidationError as error:
        raise DeviceError(_first_problem(error, where)) from None


def add_device(file: Path) -> DeviceSpec:
    """Validate a device file and copy it to the user's devices.

    Raises:
        DeviceError: the file is wrong, or a shipped board has its name.
    """
    spec = _from_file(file)
    if spec.name in _shipped():
        what = "a shipped device has this name"
        raise DeviceError(fault(f"{file}: name", what, got=spec.name, fix="choose another name"))
    write_text(user_devices_dir() / f"{spec.name}.yaml", file.read_text(encoding="utf-8"))
    return spec


def check_opset(spec: DeviceSpec, opset: int) -> None:
    """Raise :class:`DeviceError` when the board's runtime cannot load a file of this opset."""
    if not spec.opset_min <= opset <= spec.opset_max:
        runtime = {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT"}[spec.runtime]
        what = f"its {runtime} {spec.runtime_version} cannot take the opset"
        allowed, fix = f"{spec.opset_min} to {spec.opset_max}", f"export with opset {spec.opset_export}"
        raise DeviceError(fault(f"device {spec.name}", what, got=opset, allowed=allowed, fix=fix))


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
    return DeviceSpec.model_validate({**base, **found, "facts": [*found["facts"], *base["facts"]]})


def _first_problem(error: ValidationError, where: str) -> str:
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    # The member of a union that pydantic tried is no part of the user's file.
    location = [part for part in problem["loc"] if part not in ("bool", "int", "float", "str")]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    spot = f"{where}: {path}" if path else where
    if problem["type"] == "extra_forbidden":
        known = Fact.model_fields if location[0] == "facts" else DeviceSpec.model_fields
        return fault(spot, "unknown key", got=location[-1], fix=nearest(str(location[-1]), known))
    if problem["type"] == "missing":
        return fault(spot, "is missing", fix=_SEE)
    if not path:
        return fault(where, problem["msg"].removeprefix("Value error, "))
    if "expected" in problem.get("ctx", {}):
        return fault(spot, "not a known value", got=problem["input"], allowed=str(problem["ctx"]["expected"]))
    return fault(spot, problem["msg"], got=problem["input"])
