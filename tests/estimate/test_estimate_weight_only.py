"""A file whose weights alone are integers: floating-point arithmetic, less to read, called by what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.profiles import estimate

_WIDE = 2048


def _file(folder: Path, bits: int | None) -> Path:
    """A row times a matrix that no cache of a Pi holds, in float or in blocks."""
    node = "y = MatMul (x, w)"
    weight = np.ones((_WIDE, _WIDE), np.float32)
    if bits is not None:
        size = f"K = {_WIDE}, N = {_WIDE}, bits = {bits}, block_size = 32"
        node = f"y = com.microsoft.MatMulNBits <{size}> (x, w, s)"
        weight = np.ones((_WIDE, _WIDE // 32, 32 * bits // 8), np.uint8)
    imports = '"" : 17, "com.microsoft" : 1'
    signature = f"(float[1,{_WIDE}] x) => (float[1,{_WIDE}] y)"
    model = onnx.parser.parse_model(
        f"<ir_version: 8, opset_import: [{imports}]> net {signature} {{ {node} }}"
    )
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    if bits is not None:
        model.graph.initializer.append(numpy_helper.from_array(np.ones(_WIDE * _WIDE // 32, np.float32), "s"))
    path = folder / f"{bits}.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("bits", [4, 8])
def test_called_by_its_weights_and_not_validated(tmp_path: Path, bits: int) -> None:
    found = estimate(_file(tmp_path, bits), "raspberry-pi-4b")
    assert found.precision == found.to_json()["precision"] == f"int{bits} weights"
    assert not found.validated
    assert any(f"in int{bits} weights" in note for note in found.notes)


def test_fewer_bits_are_read_faster(tmp_path: Path) -> None:
    four, eight, whole = (estimate(_file(tmp_path, bits), "raspberry-pi-4b").p50_ms for bits in (4, 8, None))
    assert four < eight < whole
    assert whole > 2 * four


def test_a_precision_that_is_named_is_priced(tmp_path: Path) -> None:
    assert estimate(_file(tmp_path, 4), "raspberry-pi-4b", precision="fp32").precision == "fp32"
