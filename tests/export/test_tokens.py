"""Transformers in the file: linear layers, shapes, masks, layer scale, text; and the runtime's kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekd.export.coverage import check_coverage
from edgekd.export.write import export_float, export_quantized
from edgekd.profiles.session import open_session, run_batches
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import SCHEMES


class Windows(nn.Module):
    """Attention within windows, with a mask of -100, layer scale and an MLP."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.linspace(-1.0, 1.0, width))
        mask = torch.zeros(4, 4)
        mask[:2, 2:] = mask[2:, :2] = -100.0
        self.register_buffer("mask", mask)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch, side, _, width = x.shape
        h = nn.functional.pad(self.norm1(x), (0, 0, 0, 0, 0, 0))
        h = h.view(batch, side // 2, 2, side // 2, 2, width).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, width)
        q, k, v = self.qkv(h).reshape(h.shape[0], 4, 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
        h = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        h = self.out(h.transpose(1, 2).reshape(-1, 4, width)) * self.gamma
        h = h.view(batch, side // 2, side // 2, 2, 2, width).permute(0, 1, 3, 2, 4, 5)
        x = x + h.reshape(batch, side, side, width)
        x = x + self.gamma * self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return self.head(x.mean((1, 2)))


class Text(nn.Module):
    """Token ids to logits; the padding mask is worked out inside."""

    def __init__(self, width: int = 16, words: int = 50) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(words, width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.head = nn.Linear(width, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        h = self.norm(x)
        q, k, v = (layer(h).reshape(*ids.shape, 2, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scores = q @ k.transpose(-2, -1) + (ids == 0).float()[:, None, None, :] * -1e4
        h = (scores.softmax(-1) @ v).transpose(1, 2).reshape(*ids.shape, -1)
        return self.head((x + self.out(h))[:, 0])


def optimized(path: Path, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime really runs."""
    written = folder / f"{path.stem}-optimized.onnx"
    open_session(path, kernel_rule="x86", optimized_to=written)
    return Counter(node.op_type for node in onnx.load(str(written)).graph.node)


@pytest.fixture(scope="module")
def windows(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, Path, np.ndarray, np.ndarray, np.ndarray]:
    folder = tmp_path_factory.mktemp("windows")
    torch.manual_seed(0)
    net, x = Windows().eval(), torch.randn(32, 8, 8, 16)
    export_float(net, x, folder / "f.onnx", opset=20)
    with torch.no_grad():
        plain = net(x).numpy()
    model = prepare_qat(net, x[:2], SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    export_quantized(model.eval(), x, folder / "q.onnx", opset=20)
    with torch.no_grad():
        rounded = model(x).numpy()
    return folder, folder / "f.onnx", folder / "q.onnx", x.numpy(), plain, rounded


def test_conversions_left_over_are_told_with_what_they_are_for(windows: tuple[Path, ...]) -> None:
    _, float_file, file, *_ = windows
    found = check_coverage(file)
    assert found.leftover_qdq > 2 and "LayerNormalization" in found.converted_for, found
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(found.converted_for)
    assert check_coverage(float_file).converted_for == ()


def test_linear_layers_are_one_operator_with_their_bias_and_gelu_is_bytes(
    windows: tuple[Path, ...], tmp_path: Path
) -> None:
    floats, integers = optimized(windows[1], tmp_path), optimized(windows[2], tmp_path)
    assert floats["Gemm"] == 5 and floats["Gelu"] == 1 and floats["LayerNormalization"] == 2
    # qkv, out, up, down and the head; nothing is left of their biases, of Erf, of shape arithmetic.
    assert (integers["QLinearConv"], integers["QGemm"], integers["Gelu"]) == (4, 1, 0), integers
    assert (integers["QLinearSigmoid"], integers["QLinearMul"], integers["Clip"]) == (1, 1, 0), integers
    for kind in ("Shape", "Gather", "Pad", "Slice", "Erf", "BiasGelu", "Mul"):
        assert floats[kind] == integers[kind] == 0, kind
    # What each reads is rounded once; what the four over tokens write is turned to float once for each reader
    # (query, key and value), and the sums of the residual stream stay in float.
    assert (integers["QuantizeLinear"], integers["DequantizeLinear"]) == (4, 5), integers
    assert (integers["Add"], integers["QLinearAdd"]) == (3, 0), integers


def test_the_runtime_moves_nothing_for_a_linear_layer(windows: tuple[Path, ...], tmp_path: Path) -> None:
    """The transpositions that make an image of the tokens are those of its channels-last kernel, undone."""
    floats, integers = optimized(windows[1], tmp_path), optimized(windows[2], tmp_path)
    assert integers["Transpose"] == floats["Transpose"]


@pytest.mark.parametrize("rule", ["x86", "arm"])
def test_products_of_attention_are_reported_apart(windows: tuple[Path, ...], rule: str) -> None:
    report = check_coverage(windows[2], rule)  # type: ignore[arg-type]
    assert (report.integer_ops, report.float_ops, report.mac_coverage) == (5, 0, 1.0)
    # 16 windows of 4 x 4 tokens, two products over 16 channels.
    assert (report.float_products, report.float_product_macs) == (2, 2 * 16 * 4 * 4 * 16)


def test_the_file_computes_what_was_trained(
    windows: tuple[Path, Path, Path, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    _, floats, integers, x, plain, rounded = windows
    assert np.abs(run_batches(open_session(floats), x) - plain).max() < 1e-5
    answer = run_batches(open_session(integers), x, batch=7)
    assert (answer.argmax(1) == rounded.argmax(1)).mean() >= 31 / 32
    assert np.abs(answer - rounded).max() < 0.25 * np.abs(rounded - plain).max() + 1e-3


def test_a_mask_answers_exactly_zero(windows: tuple[Path, ...]) -> None:
    constants = [onnx.numpy_helper.to_array(t) for t in onnx.load(str(windows[1])).graph.initializer]
    masks = [value for value in constants if value.shape[-2:] == (4, 4)]
    assert len(masks) == 1 and set(np.unique(masks[0])) == {np.float32(-1e4), np.float32(0)}


def test_layer_scale_is_in_the_weights_not_in_the_integers(windows: tuple[Path, ...]) -> None:
    proto = onnx.load(str(windows[2]))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    largest = np.abs(stored["down.weight_int8"].astype(int)).max((1, 2, 3))
    assert (largest == 127).all(), "each channel still uses the whole range"
    assert np.ptp(stored["down.weight_scale"]) > 0 and (stored["down.weight_scale"] > 0).all()


def test_a_relu_between_linear_layers_is_the_rounding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16), nn.LayerNorm(16))
    x = torch.randn(8, 9, 16)
    model = prepare_qat(net.eval(), x[:2], SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    export_quantized(model.eval(), x[:2], tmp_path / "q.onnx", opset=20)
    kernels = optimized(tmp_path / "q.onnx", tmp_path)
    assert kernels["QLinearConv"] == 2 and kernels["QuantizeLinear"] == 1, kernels
    assert kernels["DequantizeLinear"] == 1 and kernels["Relu"] == kernels["Transpose"] == 0, kernels
    with torch.no_grad():
        assert (
            np.abs(run_batches(open_session(tmp_path / "q.onnx"), x.numpy()) - model(x).numpy()).max() < 0.05
        )


def test_text_of_any_batch_and_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, ids = Text().eval(), torch.randint(1, 50, (16, 9))
    ids[:8, 6:] = 0
    export_float(net, ids, tmp_path / "f.onnx", opset=20)
    model = prepare_qat(net, ids[:2], SCHEMES["u8s8"])
    model.calibrate([ids])
    model.set_phase("frozen")
    export_quantized(model.eval(), ids, tmp_path / "q.onnx", opset=20)
    kernels = optimized(tmp_path / "q.onnx", tmp_path)
    # Three projections read one QuantizeLinear; the others: out and head, which has a single row.
    assert (kernels["QLinearConv"], kernels["QGemm"], kernels["QuantizeLinear"]) == (4, 1, 3), kernels
    report = check_coverage(tmp_path / "q.onnx")
    # The scores' product reads two integers and has no factor behind it: the runtime takes it into integers.
    assert report.coverage == report.mac_coverage == 1.0 and report.float_products == 1
    for length in (9, 4, 17):
        batch = torch.randint(1, 50, (5, length))
        batch[0, 2:] = 0
        with torch.no_grad():
            expected = model(batch).numpy()
        answer = run_batches(open_session(tmp_path / "q.onnx"), batch.numpy())
        assert np.abs(answer - expected).max() < 1e-4, length


def test_a_large_table_is_looked_up_in_integers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, ids = Text(words=2048).eval(), torch.randint(1, 2048, (8, 6))
    net.embed.weight.data *= torch.linspace(0.1, 9.0, 16)
    model = prepare_qat(net, ids[:2], SCHEMES["u8s8"])
    model.calibrate([ids])
    model.set_phase("frozen")
    file = export_quantized(model.eval(), ids, tmp_path / "q.onnx", opset=20)
    assert file.size_bytes < 2048 * 16 + 20_000, "a byte a value"
    proto = onnx.load(str(file.path))
    gather = next(node for node in proto.graph.node if node.op_type == "Gather")
    table = next(t for t in proto.graph.initializer if t.name == gather.input[0])
    # Every column uses the whole range, whatever the others hold.
    assert (np.abs(onnx.numpy_helper.to_array(table).astype(int)).max(0) == 127).all()
    with torch.no_grad():
        expected = model(ids).numpy()
    assert np.abs(run_batches(open_session(file.path), ids.numpy()) - expected).max() < 1e-4
    kept = prepare_qat(Text(words=2048), ids[:2], SCHEMES["u8s8"], exclude=["embed"])
    assert not hasattr(kept.model.embed, "parametrizations") and "embed" in kept.float_layers


def test_two_outputs_a_channel_become_depthwise(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 4),
    ).eval()
    x = torch.randn(8, 3, 8, 8)
    export_float(net, x, tmp_path / "f.onnx", opset=17)
    with torch.no_grad():
        assert np.abs(run_batches(open_session(tmp_path / "f.onnx"), x.numpy()) - net(x).numpy()).max() < 1e-5
    model = prepare_qat(net, x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    export_quantized(model.eval(), x, tmp_path / "q.onnx", opset=17)
    for name in ("f", "q"):
        convolutions = [
            n for n in onnx.load(str(tmp_path / f"{name}.onnx")).graph.node if n.op_type == "Conv"
        ]
        assert [next(a.i for a in n.attribute if a.name == "group") for n in convolutions] == [1, 16]
    with torch.no_grad():
        expected = model(x).numpy()
    assert np.abs(run_batches(open_session(tmp_path / "q.onnx"), x.numpy()) - expected).max() < 1e-4
    assert check_coverage(tmp_path / "q.onnx").leftover_qdq == 0
