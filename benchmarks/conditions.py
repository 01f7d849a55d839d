"""What every result states: machine, versions, threads; and where it is written."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from edgekd.cpu import detect_cpu
from edgekd.run_report import installed_versions

RESULTS = Path(__file__).parent / "results"


def conditions() -> dict[str, Any]:
    cpu = detect_cpu()
    return {
        "cpu": cpu.title,
        "cores": cpu.cores,
        "vnni": cpu.has_vnni,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "versions": installed_versions(),
        "date": time.strftime("%Y-%m-%d"),
    }


def write(name: str, result: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"conditions": conditions(), **result}, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    print(f"written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
