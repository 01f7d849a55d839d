"""Files that a model on the command line names lie in the current folder, there or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.cli.compress import absolute_spec


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("hf:bert", "hf:{here}/bert"),
        ("hf:bert@random", "hf:{here}/bert@random"),
        ("hf:owner/name", "hf:owner/name"),
        ("torch:net.py:build@gone.pt", "torch:{here}/net.py:build@{here}/gone.pt"),
        ("torch:a@b/net.py:build", "torch:{here}/a@b/net.py:build"),
        ("timm:resnet18", "timm:resnet18"),
        ("timm:resnet18@random", "timm:resnet18@random"),
        ("timm:resnet18@gone.safetensors", "timm:resnet18@{here}/gone.safetensors"),
        ("onnx:gone.onnx", "onnx:{here}/gone.onnx"),
        ("bert", "{here}/bert"),
        ("same?layers=3", "same?layers=3"),
    ],
)
def test_a_spec_names_files_from_the_current_folder(tmp_path: Path, spec: str, meant: str) -> None:
    (tmp_path / "bert").mkdir()
    assert absolute_spec(spec, tmp_path) == meant.format(here=tmp_path)
