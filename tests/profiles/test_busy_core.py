"""A core that another process loads is noticed: with a real process on the very core."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekd.profiles import CautionKind, measure
from edgekd.profiles.worker import wait_seconds

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or wait_seconds() is None,
    reason="the system neither pins processes nor says how long they waited",
)


@pytest.fixture
def one_core() -> Iterator[int]:
    """This process and those that it starts share one core."""
    allowed = os.sched_getaffinity(0)
    core = min(allowed)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, allowed)


def waited(path: Path) -> list[str]:
    report = measure({"a": path}, seconds=1.5, target=0.001).reports["a"]
    return [
        str(caution)
        for caution in report.warnings
        if caution.kind is CautionKind.CORES_SHARED and "waited" in str(caution)
    ]


def test_a_loaded_core_is_warned_of(make_onnx: Callable[..., Path], one_core: int) -> None:
    path = make_onnx(features=2000, dims=("n", 20, 100), classes=1000)
    busy = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    )
    try:
        assert busy.stdout is not None
        busy.stdout.readline()
        (text,) = waited(path)
    finally:
        busy.kill()
        busy.wait()
        busy.stdout.close()
    # Two that share a core fairly wait half of their time; on a loaded machine more.
    share = int(text.split("%")[0].rsplit(" ", 1)[1])
    assert share > 20
