"""A deployed model's script switches the runtime's usage data off before the runtime is there to send any."""

from __future__ import annotations

import ast
from importlib import resources

import pytest


@pytest.mark.parametrize("script", ["bundle_run.py", "bundle_run_text.py"])
def test_telemetry_is_off_before_the_runtime_is_imported(script):
    body = ast.parse((resources.files("edgekd.export") / script).read_text(encoding="utf-8")).body
    steps = [ast.unparse(step) for step in body]
    off = steps.index("os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')")
    assert off < steps.index("import onnxruntime")
