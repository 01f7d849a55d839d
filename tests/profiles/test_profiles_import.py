"""What importing edgekd.profiles brings in: on a Pi there is no torch, and nobody waits for one."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import edgekd.profiles


def modules_after(code: str) -> set[str]:
    report = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(result.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import edgekd.profiles",
        "from edgekd.profiles import *",
        "import edgekd.profiles.worker",
        "from edgekd.device import load_device; load_device('cpu')",
    ],
)
def test_neither_torch_nor_onnx_nor_the_runtime(code: str) -> None:
    loaded = modules_after(code)
    assert "edgekd" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "timm", "transformers", "pandas"}


def test_the_bare_import_is_light() -> None:
    assert "numpy" not in modules_after("import edgekd.profiles")


def test_every_public_name_is_there_and_is_no_module() -> None:
    # Once a submodule is imported it becomes an attribute of the package; it must not hide a function.
    for home in sorted(set(edgekd.profiles._HOMES.values())):
        importlib.import_module(f"edgekd.profiles.{home}")
    for name in edgekd.profiles.__all__:
        assert callable(getattr(edgekd.profiles, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgekd.profiles.nothing
