"""How fast a machine copies and multiplies, as measured there; and what was measured on this one, kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd.artifact import write_text
from edgekd.cpu import CpuFacts
from edgekd.device_parts import Fact


class Speed(BaseModel):
    """Rates of one core and of all together; 0 = not measured. Bytes copied and fp32 operations a second."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    cores: float = Field(ge=1)
    load: float = Field(default=0.0, ge=0)
    copy_1core: float = Field(default=0.0, ge=0)
    copy_all: float = Field(default=0.0, ge=0)
    copy_buffer_1core: float = Field(default=0.0, ge=0)
    copy_buffer_all: float = Field(default=0.0, ge=0)
    flops_1core: float = Field(default=0.0, ge=0)
    flops_all: float = Field(default=0.0, ge=0)


def speed_facts(speed: Speed | None) -> list[dict[str, Any]]:
    """Measured rates as facts, each with how it was measured."""
    if speed is None:
        return []
    cores, busy = int(speed.cores), f"; load before {speed.load:.1f}"

    def copying(number: int, size: float) -> str:
        each = f"each of {number} processes" if number > 1 else "one process"
        return f"measured: {each} copies a buffer of {size / 2**20:.0f} MiB by 4 MiB, lower quartile of 0.25 s{busy}"

    product = "multiplies 512 x 512 fp32 matrices with numpy, lower quartile of 0.25 s"
    rows = (
        ("memcpy_1t", speed.copy_1core, "GB/s", copying(1, speed.copy_buffer_1core)),
        ("stream_copy", 2 * speed.copy_all, "GB/s",
         copying(cores, speed.copy_buffer_all) + "; read and written bytes counted, as STREAM does"),
        ("cpu_fp32_measured_1core", speed.flops_1core, "GFLOP/s", f"measured: one process {product}{busy}"),
        ("cpu_fp32_measured", speed.flops_all, "GFLOP/s", f"measured: each of {cores} processes {product}{busy}"),
    )  # fmt: skip
    return [
        {"key": key, "value": float(f"{rate / 1e9:.3g}"), "unit": unit, "source": source}
        for key, rate, unit, source in rows
        if rate
    ]


def remember(cpu: CpuFacts, facts: list[dict[str, Any]]) -> Path:
    """Keep what was measured on this machine; the device ``cpu`` has it from now on."""
    path = _kept()
    write_text(path, json.dumps({"machine": cpu.fingerprint, "facts": facts}, indent=1) + "\n")
    return path


def remembered(cpu: CpuFacts) -> list[dict[str, Any]]:
    """What was measured on this very machine before; nothing where it was not, or not on this one."""
    try:
        kept = json.loads(_kept().read_text(encoding="utf-8"))
        if kept["machine"] != cpu.fingerprint:
            return []
        return [Fact.model_validate(fact).model_dump() for fact in kept["facts"]]
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return []


def _kept() -> Path:
    base = os.environ.get("EDGEKD_CACHE")
    if base is None:
        base = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekd")
    return Path(base) / "machine-speed.json"
