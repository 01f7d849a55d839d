"""The image read as wider pixels: the same sums, fewer look-ups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekd.export.coverage import check_coverage
from edgekd.export.layouts import MULTIPLES
from edgekd.export.macs import count_macs
from edgekd.export.sparsity import check_sparsity
from edgekd.export.weights import StoredWeight, load_onnx, stored_weights
from edgekd.export.write import export_quantized
from edgekd.profiles.session import open_session
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import SCHEMES


def exported(
    conv: nn.Conv2d, size: tuple[int, int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[StoredWeight, StoredWeight]:
    """The first layer's weight with pixels folded and without, both files' answers being the same."""
    torch.manual_seed(0)
    x = torch.randn(3, conv.in_channels, *size)
    net = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(16))
    net(x)
    model = prepare_qat(net.eval(), x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    answers, weights = [], []
    for name in ("folded", "plain"):
        file = folder / f"{name}.onnx"
        export_quantized(model.eval(), x, file, opset=17)
        report = check_coverage(file)
        assert (report.coverage, report.leftover_qdq) == (1.0, 0), report.float_nodes
        answers.append(open_session(file).run(None, {"input": x.numpy()})[0])
        weights.append(next(iter(stored_weights(load_onnx(file)))))
        monkeypatch.setattr("edgekd.export.align.fold_pixels", lambda *_: 0)
    np.testing.assert_array_equal(*answers)
    assert np.unique(answers[0]).size > 40
    return weights[0], weights[1]


@pytest.mark.parametrize(
    ("conv", "size", "shape"),
    [
        (nn.Conv2d(3, 16, 3, 2, 1), (12, 16), (32, 12, 3, 2)),
        (nn.Conv2d(3, 8, 7, 2, 3), (16, 16), (16, 12, 7, 3)),
        (nn.Conv2d(3, 16, 3, 2, 0), (13, 12), None),  # five columns written: no pairs
        (nn.Conv2d(3, 16, 3, 2, 1), (12, 14), None),  # seven columns written
        (nn.Conv2d(3, 16, 4, 4), (12, 16), (16, 12, 4, 1)),
        (nn.Conv2d(3, 16, 16, 16), (32, 32), (16, 48, 16, 1)),
        (nn.Conv2d(3, 16, 8, 8), (16, 32), (16, 24, 8, 1)),
        (nn.Conv2d(3, 16, 2, 2, bias=False), (8, 16), (32, 12, 2, 1)),
        (nn.Conv2d(1, 16, 3, 1, 1), (9, 8), (64, 4, 3, 3)),
        (nn.Conv2d(1, 16, 5, 1, 2), (9, 8), (64, 4, 5, 3)),
        (nn.Conv2d(3, 16, (3, 5), (1, 2), (1, 2)), (8, 16), (32, 12, 3, 3)),
        (nn.Conv2d(3, 96, 3, 1, 1), (8, 8), None),  # three times the products for 96 outputs
        (nn.Conv2d(4, 16, 3, 1, 1), (8, 8), None),  # the fast kernel takes it as it is
        (nn.Conv2d(3, 16, 3, 2, 1, dilation=2), (16, 16), None),
    ],
)
def test_every_sum_stays_the_same(
    conv: nn.Conv2d,
    size: tuple[int, int],
    shape: tuple[int, ...] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folded, plain = exported(conv, size, tmp_path, monkeypatch)
    if shape is None:
        assert folded.values.shape == plain.values.shape and not folded.pixels
        return
    assert folded.values.shape == shape and folded.pixels and not plain.pixels
    assert folded.layer == plain.layer == "0" and folded.products == plain.products == conv.weight[0].numel()
    macs = [count_macs(load_onnx(tmp_path / f"{name}.onnx"))[0] for name in ("folded", "plain")]
    assert macs[0] == macs[1] and next(iter(macs[0].values())) % folded.products == 0
    assert np.abs(folded.values).astype(int).sum() == np.abs(plain.values).astype(int).sum() * (
        shape[0] // conv.out_channels
    )


def test_the_file_has_no_fourth_channel_and_moves_the_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(nn.Conv2d(3, 16, 3, 2, 1), (16, 16), tmp_path, monkeypatch)
    found = []
    for name in ("folded", "plain"):
        optimized = tmp_path / f"{name}-optimized.onnx"
        open_session(tmp_path / f"{name}.onnx", kernel_rule="x86", optimized_to=optimized)
        found.append([node.op_type for node in onnx.load(str(optimized)).graph.node])
    folded, plain = found
    assert "Pad" in plain and "Pad" not in folded
    assert folded[: folded.index("QLinearConv")] == ["QuantizeLinear", "Reshape", "Transpose", "Reshape"]
    assert folded.count("Transpose") == plain.count("Transpose")


def test_neighbours_are_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(nn.Conv2d(3, 16, 4, 4), (8, 8), tmp_path, monkeypatch)
    report = check_sparsity(tmp_path / "folded.onnx", "2:4")
    assert "0: the image's pixels are its channels" in report.skipped and "0" not in report.violating


def test_arm_files_keep_the_image_as_it_is() -> None:
    assert MULTIPLES["x86"].fold_pixels and not MULTIPLES["arm"].fold_pixels
