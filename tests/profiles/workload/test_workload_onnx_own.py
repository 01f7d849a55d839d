"""The networks that the onnx package ships for its own tests: counted, or refused in one line."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import onnx
import pytest

from edgekd.errors import EdgeKDError
from edgekd.profiles.estimation.workload import read_workload

_DATA = Path(os.path.dirname(onnx.__file__)) / "backend" / "test" / "data"
_LIGHT = sorted((_DATA / "light").glob("*.onnx"))
_SMALL = sorted(
    path for part in ("simple", "pytorch-operator") for path in (_DATA / part).glob("*/model.onnx")
)


@pytest.mark.skipif(not _LIGHT, reason="this onnx ships no light networks")
@pytest.mark.parametrize(
    ("name", "million_macs"),
    [("alexnet", 656), ("squeezenet", 352), ("inception_v1", 1503), ("resnet50", 4089), ("shufflenet", 127)],
)
def test_light_networks_are_counted(name: str, million_macs: int) -> None:
    """Caffe's, with a dropout's mask that nobody reads. AlexNet's two groups make 656 of its 724 million."""
    path = next(path for path in _LIGHT if path.stem.endswith(name))
    found = read_workload(path)
    assert found.macs / 1e6 == pytest.approx(million_macs, rel=0.05)
    assert not any(operator.op == "Dropout" for operator in found.operators)


@pytest.mark.skipif(not _SMALL, reason="this onnx ships no test networks")
def test_no_file_of_onnx_itself_ends_in_a_traceback() -> None:
    seen: Counter[str] = Counter()
    for path in _SMALL:
        try:
            read_workload(path, batch=_batch(path))
            seen["read"] += 1
        except EdgeKDError as error:
            assert "\n" not in str(error), path
            seen["refused"] += 1
    assert seen["read"] > 20, seen


def _batch(path: Path) -> int:
    value = onnx.load(path).graph.input
    dims = value[0].type.tensor_type.shape.dim if value else ()
    return max(1, dims[0].dim_value) if dims else 1
