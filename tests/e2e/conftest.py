"""One whole run on digits for two devices, shared by the tests that look at what it left."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

FULL = """
name: digits
data: {path: "builtin:digits"}
devices: [cpu, jetson-orin-nano]
stages:
  - distill: {epochs: 7, batch_size: 32, lr: 1.0e-2, teacher_cache: true, augment: {hflip: 0}, objectives: {kd: {temperature: 3}, ce: {weight: 0.2}}}
  - prune: {epochs: 3, batch_size: 32, lr: 5.0e-3, permute: true, saliency: wanda, teacher_cache: true, augment: {hflip: 0}, objectives: {kd: {temperature: 3}, ce: {weight: 0.2}}}
  - quantize: {epochs: 2, batch_size: 32, lr: 1.0e-3, augment: {hflip: 0}, objectives: {kd: {temperature: 3}, ce: {weight: 0.2}}}
export: {choose: as-trained}
profile: {rounds: 2, runs: 20, warmup: 2}
"""  # noqa: E501


@dataclass(frozen=True)
class WholeRun:
    out: Path
    recipe: Path
    console: str
    progress: str
    report: dict[str, Any]

    def deployed(self, device: str) -> dict[str, Any]:
        return next(entry for entry in self.report["deploy"] if entry["device"] == device)


@pytest.fixture(scope="session")
def whole(
    edgekd: Callable[..., Any], nets: Path, digits_teacher: str, tmp_path_factory: pytest.TempPathFactory
) -> WholeRun:
    """distill, prune, quantize, deploy: `edgekd compress recipe.yaml --out out`."""
    document = yaml.safe_load(FULL)
    document |= {"teacher": digits_teacher, "student": "torch:nets.py:student"}
    recipe = nets / "whole.yaml"  # relative paths start from the recipe's folder
    recipe.write_text(yaml.safe_dump(document))
    out = tmp_path_factory.mktemp("whole") / "out"
    done = edgekd("compress", recipe, "--out", out)
    assert done.code == 0, done.err
    return WholeRun(out, recipe, done.out, done.err, json.loads((out / "report.json").read_text()))
