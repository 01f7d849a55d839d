"""Layer norm, softmax, GELU and attention in the runtime's own order of additions: it computes the same bits."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.export.parity import parity_of_file
from edgekd.export.write import export_quantized
from edgekd.quant import float_kernels
from edgekd.quant.exact import ExactTwin
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import SCHEMES

WIDE = "avx512f" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False


def runtime(op: str, x: Tensor, *constants: Tensor, **attributes: object) -> Tensor:
    """One node in ONNX Runtime."""
    names = [f"c{k}" for k in range(len(constants))]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], ["y"], **attributes)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(each.numpy(), name) for name, each in zip(names, constants, strict=True)],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def same(found: Tensor, wanted: Tensor, everywhere: bool) -> bool:
    """To the bit where this machine has the instructions that the formula is of."""
    return (
        torch.equal(found, wanted) if everywhere or WIDE else bool(torch.allclose(found, wanted, 1e-5, 1e-6))
    )


@pytest.mark.parametrize("width", [192, 96, 100])
def test_layer_norm(width: int) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3000, width) * 3 + 0.5, torch.rand(width) + 0.5, torch.randn(width)
    wanted = runtime("LayerNormalization", x, weight, bias, epsilon=1e-6)
    found = float_kernels.layer_norm(x, (width,), weight, bias, 1e-6)
    # Behind the last whole eight, a compiler decided how the runtime rounds.
    whole = width - width % 8
    assert width % 8 or torch.equal(found, wanted)
    assert torch.allclose(found[:, :whole], wanted[:, :whole], 1e-6, 1e-6)
    assert not torch.equal(F.layer_norm(x, (width,), weight, bias, 1e-6), wanted), "else nothing to mend"


@pytest.mark.parametrize("width", [197, 49, 48, 16, 5])
def test_softmax(width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(500, width) * torch.tensor([0.1, 1.0, 10.0, 60.0]).repeat(125).unsqueeze(1)
    wanted = runtime("Softmax", x, axis=-1)
    assert same(float_kernels.softmax(x, dim=-1), wanted, False)
    assert not torch.equal(F.softmax(x, -1), wanted)


def test_gelu() -> None:
    x = torch.cat([torch.linspace(-9, 9, 16_000), torch.randn(16_000)]).reshape(2, -1)
    wanted = runtime("Gelu", x)
    assert same(float_kernels.gelu(x), wanted, False)
    assert not torch.equal(F.gelu(x), wanted)


def test_what_the_formulas_do_not_cover_is_torchs() -> None:
    x = torch.randn(4, 6, 16)
    assert torch.equal(float_kernels.softmax(x, dim=1), F.softmax(x, 1))
    assert torch.equal(float_kernels.gelu(x, approximate="tanh"), F.gelu(x, approximate="tanh"))
    assert torch.equal(float_kernels.layer_norm(x, (6, 16)), F.layer_norm(x, (6, 16)))
    mask = torch.ones(16, 16, dtype=torch.bool).tril()
    q = torch.randn(2, 2, 16, 8)
    assert torch.equal(
        float_kernels.attention(q, q, q, mask), F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
    )


def test_attention_is_attention() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 20, 16) for _ in range(3))
    bias = torch.randn(20, 20)
    for given in ({}, {"attn_mask": bias}, {"scale": 0.3}):
        wanted = F.scaled_dot_product_attention(q, k, v, **given)
        assert torch.allclose(float_kernels.attention(q, k, v, **given), wanted, 1e-4, 1e-5)


class Block(nn.Module):
    """Attention as one call, or step by step: the runtime multiplies by the scale behind the product."""

    def __init__(self, steps: bool) -> None:
        super().__init__()
        self.steps, self.softmax = steps, nn.Softmax(dim=-1)
        self.first, self.second = nn.LayerNorm(64), nn.LayerNorm(64)
        self.qkv, self.up, self.down = nn.Linear(64, 192), nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.first(x)).reshape(-1, 64, 3, 4, 16).permute(2, 0, 3, 1, 4).unbind(0)
        if self.steps:
            mixed = self.softmax((q * 0.3) @ k.transpose(-2, -1)) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + mixed.transpose(1, 2).reshape(-1, 64, 64)
        return x + self.down(F.gelu(self.up(self.second(x))))


class Transformer(nn.Module):
    """Its answers are float: every last bit shows."""

    def __init__(self, steps: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 4, stride=4)
        self.blocks = nn.Sequential(Block(steps), Block(steps))
        self.norm = nn.LayerNorm(64)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.stem(x).flatten(2).transpose(1, 2)))[:, 0]


@pytest.mark.parametrize("steps", [False, True])
def test_a_transformers_file_to_the_last_bit(steps: bool, tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(24, 3, 32, 32)
    model = prepare_qat(Transformer(steps).eval(), x[:2], SCHEMES["u8s8"]).eval()
    model.calibrate(x.split(12))
    model.set_phase("frozen")
    path = tmp_path / "model.onnx"
    export_quantized(model, x, path, opset=20)
    twin = ExactTwin(model, x[:2])

    def largest() -> float:
        return parity_of_file(
            path, lambda given: twin(torch.from_numpy(given)).numpy(), x.numpy()
        ).max_abs_diff

    assert largest() == 0 if WIDE else largest() < 0.1
    monkeypatch.setattr("edgekd.quant.exact.FLOAT_KERNELS", {})
    assert largest() > 0, "else there would be nothing to mend"
