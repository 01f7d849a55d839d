"""Axes that are moved several times, parts that are taken out of them, and what is the same for every sample: the file
moves and computes less, and answers the same to the last bit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import ExportError
from edgekd.export import finish
from edgekd.export.coverage import check_coverage
from edgekd.export.sparsity import check_sparsity
from edgekd.export.write import export_float, export_quantized
from edgekd.prune.apply import prune
from edgekd.quant.exact import ExactTwin
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES


class Patches(nn.Module):
    """An image in patches of 2 x 2, a layer over the pixels of one position in all patches, and the image again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 1)
        self.norm, self.mix, self.head = nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, c, h, w = x.shape
        y = x.reshape(b * c * (h // 2), 2, w // 2, 2).transpose(1, 2)
        y = y.reshape(b, c, h * w // 4, 4).transpose(1, 3).reshape(b * 4, h * w // 4, c)
        y = self.mix(self.norm(y))
        y = y.reshape(b, 4, h * w // 4, c).transpose(1, 3)
        y = y.reshape(b * c * (h // 2), w // 2, 2, 2).transpose(1, 2).reshape(b, c, h, w)
        return self.head(self.last(y).mean((2, 3)))


class Crossed(nn.Module):
    """Attention between channels, over a position code of the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.code = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Conv2d(8, 16, 1)
        self.norm, self.qkv, self.head = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, c, h, w = x.shape
        rows = torch.ones(b, h, w, device=x.device).cumsum(1)[:, None] / torch.arange(1, 9)[:, None, None]
        x = (x + self.code(torch.sin(rows))).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).reshape(b, h * w, 3, 4, c // 4).permute(2, 0, 3, 4, 1).unbind(0)
        shares = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)).softmax(-1)
        return self.head((shares @ v).permute(0, 3, 1, 2).reshape(b, h * w, c).mean(1))


def made(net: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return net().eval(), torch.randn(6, 3, 16, 24)


def quantized(net: nn.Module, x: Tensor) -> QuantizedModel:
    model = prepare_qat(net, x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    return model.eval()


def answers(path: Path, x: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"input": x.numpy()})[0]
    return found


def kinds(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fold_samples", "unbind_before_moving", "join_moves"):
        monkeypatch.setattr(finish, name, lambda proto: [])


@pytest.mark.parametrize("net", [Patches, Crossed])
@pytest.mark.parametrize("integers", [False, True])
def test_the_answers_stay_the_same(
    net: type[nn.Module], integers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = made(net)
    q = quantized(model, x) if integers else None

    def write(path: Path) -> np.ndarray:
        if q is not None:
            export_quantized(q, x, path, opset=17)
        else:
            export_float(model, x, path, opset=17)
        return np.concatenate([answers(path, x), *(answers(path, x[k : k + 1]) for k in range(3))])

    now = write(tmp_path / "now.onnx")
    without(monkeypatch)
    before = write(tmp_path / "before.onnx")
    if integers:
        np.testing.assert_array_equal(now, before)
    else:  # other layouts, other orders of additions
        np.testing.assert_allclose(now, before, atol=1e-5)
    assert kinds(tmp_path / "now.onnx")["Reshape"] <= kinds(tmp_path / "before.onnx")["Reshape"]


def test_four_moves_are_one_beside_the_layout(tmp_path: Path) -> None:
    model, x = made(Patches)
    export_float(model, x, tmp_path / "f.onnx", opset=17)
    moves = [list(node.attribute[0].ints) for node in onnx.load(str(tmp_path / "f.onnx")).graph.node
             if node.op_type == "Transpose"]  # fmt: skip
    assert moves == [[0, 2, 3, 1], [0, 2, 4, 1, 3, 5], [0, 3, 1, 4, 2, 5], [0, 3, 1, 2]]


def test_parts_are_taken_before_their_axes_move(tmp_path: Path) -> None:
    model, x = made(Crossed)
    export_float(model, x, tmp_path / "f.onnx", opset=17)
    ranks = [len(node.attribute[0].ints) for node in onnx.load(str(tmp_path / "f.onnx")).graph.node
             if node.op_type == "Transpose"]  # fmt: skip
    assert max(ranks) == 4


def test_what_is_the_same_for_every_sample_is_a_constant(tmp_path: Path) -> None:
    model, x = made(Crossed)
    layers = sorted(prune(model, "2:4").layers)
    assert "code" in layers
    q = quantized(model, x)
    path = tmp_path / "q.onnx"
    file = export_quantized(q, x, path, opset=17)
    assert kinds(path)["Sin"] == kinds(path)["CumSum"] == 0
    assert any(note.startswith("code is not in the file") for note in file.notes)
    assert check_coverage(path, "x86").mac_coverage == 1.0
    assert check_sparsity(path, "2:4", layers).violations == 0
    twin = torch.as_tensor(ExactTwin(q, x)(x))
    np.testing.assert_allclose(answers(path, x), twin, atol=1e-5)
    proto = onnx.load(str(path))
    (entry,) = (entry for entry in proto.metadata_props if entry.key == "constant_layers")
    assert json.loads(entry.value) == ["code"]
    entry.value = "{"  # a file from elsewhere
    onnx.save(proto, str(path))
    with pytest.raises(ExportError, match="a pruned layer is not in the file"):
        check_sparsity(path, "2:4", layers)


class Own(nn.Module):
    """A code that differs between samples of a batch stays computed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        place = torch.ones_like(x[:, :1, :1, :1]).cumsum(0)
        return (x + torch.sin(place)).mean((2, 3))


def test_what_differs_between_samples_stays(tmp_path: Path) -> None:
    model, x = made(Own)
    export_float(model, x, tmp_path / "f.onnx", opset=17)
    assert kinds(tmp_path / "f.onnx")["Sin"] == 1
    np.testing.assert_allclose(answers(tmp_path / "f.onnx", x), model(x).detach().numpy(), atol=1e-5)
