"""A network that the exporter does not know is refused before it is trained, not after."""

from __future__ import annotations

import pytest

NET = """
import torch
from torch import nn

class Waves(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(torch.fft.fft2(x).real.flatten(1))

class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.mark.parametrize(("teacher", "student"), [("Waves", "Plain"), ("Plain", "Waves"), (None, "Waves")])
def test_it_is_tried_before_the_first_stage(edgekd, tmp_path, teacher, student):
    (tmp_path / "net.py").write_text(NET)
    objective = "kd" if teacher else "ce"
    lines = [
        "name: waves", "data: {path: 'builtin:digits'}", "input: {size: 8, channels: 1}",
        f"teacher: {f'torch:net.py:{teacher}' if teacher else 'null'}", f"student: torch:net.py:{student}",
        f"stages: [{{distill: {{epochs: 1, objectives: {{{objective}: {{}}}}}}}}]",
    ]  # fmt: skip
    (tmp_path / "recipe.yaml").write_text("\n".join(lines))
    found = edgekd("compress", tmp_path / "recipe.yaml", "--out", tmp_path / "run")
    wrong = "teacher" if teacher == "Waves" else "student"
    assert found.code != 0 and f"{wrong}, tried before any training: Waves: cannot be exported" in found.err
    assert "epoch" not in found.err and not list(tmp_path.glob("run/stages/*-distill"))
