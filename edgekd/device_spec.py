"""A board's description: what it is, what its runtime takes, which releases and power modes it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from edgekd.device_defaults import filled
from edgekd.device_parts import ArmLevel, Fact, JetPack, PowerMode, RuntimeSupport, Strict, Trouble
from edgekd.errors import DeviceError, fault


class DeviceSpec(Strict):
    """A board's description. A file needs ``name``, ``arch``, ``cores`` and ``facts``; :mod:`edgekd.device_defaults`
    has the rest.

    Attributes:
        opset_max: the highest ONNX opset that the board's runtime loads; a newer file is refused.
        opset_export: the opset that edgekd writes for this board.
        scheme: how activations are quantized: ``u8s8`` (uint8 x int8), ``u8s8-reduce-range`` (7-bit weights,
            for x86 without VNNI), ``s8s8`` (symmetric, zero point 0, for TensorRT).
        kernel_rule: which of ONNX Runtime's fusion rules the kernel-coverage gate reads the file under.
        int8: the runtime has int8 kernels on this hardware.
        sparse_2to4: runtime and hardware both make use of 2:4 weights.
        memory_bytes: of the smallest variant sold; None where nobody wrote it.
        facts: figures; :mod:`edgekd.device_facts` has the keys that edgekd computes with.
        power_modes: at most one is the default.
        jetpacks: the releases that run here; the default one's runtime is the board's.
        jetpack: the one that was chosen (``NAME@VERSION``), else the default; None where there are none.
        runtimes: what each runtime can do here.
        models: patterns (``*``, ``?``) of what such a board's device tree calls itself, for detection.
        arm: None for other processors, and where nobody wrote it.
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
    memory_bytes: int | None = Field(default=None, gt=0)
    facts: tuple[Fact, ...]
    arm: ArmLevel | None = None
    power_modes: tuple[PowerMode, ...] = ()
    jetpacks: tuple[JetPack, ...] = ()
    jetpack: str | None = None
    runtimes: tuple[RuntimeSupport, ...] = ()
    trouble: tuple[Trouble, ...] = ()
    models: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, document: Any) -> Any:
        return filled(document) if isinstance(document, Mapping) else document

    @model_validator(mode="after")
    def _consistent(self) -> DeviceSpec:
        if not self.opset_min <= self.opset_export <= self.opset_max:
            raise ValueError("opset_export must lie between opset_min and opset_max")
        if self.runtime == "tensorrt" and self.scheme != "s8s8":
            raise ValueError("scheme must be s8s8: TensorRT takes symmetric int8 alone")
        if self.scheme == "u8s8-reduce-range" and self.arch != "x86_64":
            raise ValueError("scheme u8s8-reduce-range is for x86_64 without VNNI")
        if self.arm is not None and self.arch != "aarch64":
            raise ValueError("arm is for aarch64")
        _names_once("facts", [fact.key for fact in self.facts])
        _names_once("power_modes", [mode.name for mode in self.power_modes])
        _names_once("jetpacks", [jetpack.version for jetpack in self.jetpacks])
        _names_once("runtimes", [runtime.name for runtime in self.runtimes])
        for part in (self.power_modes, self.jetpacks):
            if sum(each.default for each in part) > 1:
                raise ValueError("power_modes and jetpacks have one default each")
        versions = [each.version for each in self.jetpacks]
        if self.jetpack is not None and self.jetpack not in versions:
            allowed = ", ".join(versions) or "none: jetpacks is empty"
            raise ValueError(f"jetpack: not one of jetpacks; got {self.jetpack!r}; allowed: {allowed}")
        return self

    def fact(self, key: str) -> Fact | None:
        return next((fact for fact in self.facts if fact.key == key), None)

    def default_power_mode(self) -> PowerMode | None:
        """The mode that the board boots into; the first where none is marked."""
        return next((m for m in self.power_modes if m.default), next(iter(self.power_modes), None))

    def power_mode(self, name: str) -> PowerMode:
        """The mode that ``nvpmodel`` calls ``name``; letter case and a leading ``MODE_`` do not matter.

        Raises:
            DeviceError: the board has no such mode.
        """
        names = {mode.name.casefold().removeprefix("mode_"): mode for mode in self.power_modes}
        if (wanted := name.casefold().removeprefix("mode_")) in names:
            return names[wanted]
        allowed = ", ".join(mode.name for mode in self.power_modes) or "none: the board has no power modes"
        raise DeviceError(fault(f"device {self.name}", "no such power mode", got=name, allowed=allowed))

    def chosen_jetpack(self) -> JetPack | None:
        """The JetPack that was named, or the default one; None where the board has none."""
        wanted = self.jetpack
        found = (j for j in self.jetpacks if (j.default if wanted is None else j.version == wanted))
        if (jetpack := next(found, None)) is None and wanted is not None:
            allowed = ", ".join(each.version for each in self.jetpacks) or "none: it is no Jetson"
            raise DeviceError(fault(f"device {self.name}", "no such JetPack", got=wanted, allowed=allowed))
        return jetpack

    def with_jetpack(self, version: str) -> DeviceSpec:
        """The same board under another JetPack: runtime version and opsets are that release's.

        Raises:
            DeviceError: the board has no such JetPack.
        """
        chosen = self.model_copy(update={"jetpack": version})
        jetpack = chosen.chosen_jetpack()
        assert jetpack is not None  # named: found, or refused above
        if self.runtime != "tensorrt":
            return chosen
        return chosen.model_copy(
            update={
                "runtime_version": jetpack.tensorrt,
                "opset_max": jetpack.opset_max,
                "opset_export": jetpack.opset_export,
            }
        )

    def runtime_support(self, runtime: str) -> RuntimeSupport | None:
        """What ``runtime`` can do here, where that is written."""
        return next((each for each in self.runtimes if each.name == runtime), None)

    def to_yaml(self) -> str:
        """The whole description, in the form that :func:`load_device` reads."""
        written = self.model_dump(mode="json", exclude_none=True)
        lines = []
        for key, value in written.items():
            if value in ([], ()) and key != "facts":
                continue
            if value and isinstance(value, list) and isinstance(value[0], dict):
                lines += [f"{key}:", *(f"  - {_flow(each)}" for each in value)]
            else:
                lines.append(f"{key}: {_flow(value)}")
        return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """One value on one line."""
    text = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.strip()[1:-1]


def _names_once(part: str, names: list[str]) -> None:
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{part}: {repeated!r} stands twice")
