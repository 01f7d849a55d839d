"""torch's packed attention as linear layers: the same answers, and masks, integers and files reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.export.coverage import check_coverage
from edgekd.export.write import export_float, export_quantized
from edgekd.models.plain_attention import PlainAttention, plain_attentions
from edgekd.models.reparametrize import is_reparametrized, reparametrize
from edgekd.profiles.session import open_session
from edgekd.prune.apply import prune
from edgekd.quant.exact import ExactTwin
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import get_scheme

BATCH, TOKENS, WIDTH, HEADS = 3, 5, 16, 4


class Calls(nn.Module):
    """One attention, called as a test says; ``reads`` makes its shares part of the answer."""

    def __init__(
        self, own: nn.MultiheadAttention, *, other: int = 0, reads: bool = False, **given: Any
    ) -> None:
        super().__init__()
        self.own, self.other, self.reads, self.given = own, other, reads, given

    def forward(self, x: Tensor) -> Tensor:
        key = x[..., : self.other].flip(0) if self.other else x
        answer, shares = self.own(x, key, key, **self.given)
        return answer + shares.sum() if self.reads else answer


class Vit(nn.Module):
    def __init__(self, *, first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            16, 4, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=first
        )
        self.patch = nn.Conv2d(4, 16, 4, stride=4)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


def images(count: int) -> Tensor:
    return torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(1))


MASKS = {
    "none": {},
    "bool": {"attn_mask": torch.ones(TOKENS, TOKENS).triu(1).bool()},
    "float": {"attn_mask": torch.linspace(-2, 2, TOKENS * TOKENS).reshape(TOKENS, TOKENS)},
    "each head": {"attn_mask": torch.arange(BATCH * HEADS * TOKENS * TOKENS).reshape(-1, TOKENS, TOKENS) % 3 * -1.0},
    "padding": {"key_padding_mask": torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]).bool()},
    "both": {"key_padding_mask": torch.tensor([[0, 0, 0, 1, 1]] * 3).bool(),
             "attn_mask": torch.ones(TOKENS, TOKENS).triu(2).bool(), "need_weights": False},
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("other", [0, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_every_mask_gives_the_answers_of_torch(mask: str, other: int, bias: bool) -> None:
    torch.manual_seed(0)
    kinds = {"kdim": other, "vdim": other} if other else {}
    own = nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=True, **kinds)
    if bias:
        own.in_proj_bias.normal_()
    net = Calls(own, other=other, **MASKS[mask]).eval()
    x = torch.randn(BATCH, TOKENS, WIDTH)
    expected = net(x)
    assert plain_attentions(net, x) == ["own"]
    assert isinstance(net.own, PlainAttention) and net.own.packed == (not other)
    torch.testing.assert_close(net(x), expected)


@torch.no_grad()
def test_tokens_first() -> None:
    net = Calls(nn.MultiheadAttention(WIDTH, HEADS)).eval()
    x = torch.randn(TOKENS, BATCH, WIDTH)
    expected = net(x)
    assert plain_attentions(net, x) == ["own"]
    torch.testing.assert_close(net(x), expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "reads"), [({}, True), ({"add_zero_attn": True}, False), ({"add_bias_kv": True}, False)]
)
def test_what_it_could_not_give_is_left_alone(options: dict[str, bool], reads: bool) -> None:
    own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options)
    net = Calls(own, reads=reads).eval()
    assert plain_attentions(net, torch.randn(BATCH, TOKENS, WIDTH)) == [] and net.own is own


@torch.no_grad()
@pytest.mark.parametrize("first", [True, False])
def test_a_transformer_of_torch_is_pruned_quantized_and_written(first: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Vit(first=first).eval(), images(8)
    expected = net(x).numpy()
    export_float(net, x, tmp_path / "float.onnx", opset=17)
    (written,) = open_session(tmp_path / "float.onnx").run(None, {"input": x.numpy()})
    np.testing.assert_allclose(written, expected, atol=1e-5)

    attentions = [f"encoder.layers.{k}.self_attn" for k in (0, 1)]
    assert reparametrize(net, x) == attentions and is_reparametrized(net)
    np.testing.assert_allclose(net(x).numpy(), expected, atol=1e-5)
    masked = set(prune(net, "2:4").layers)
    assert {f"{name}.{layer}" for name in attentions for layer in ("qkv", "out_proj")} <= masked
    quantized = prepare_qat(net, x, get_scheme("u8s8"))
    quantized.calibrate([x])
    export_quantized(quantized, x, tmp_path / "int8.onnx", opset=17)
    assert check_coverage(tmp_path / "int8.onnx").mac_coverage == 1.0
    (written,) = open_session(tmp_path / "int8.onnx").run(None, {"input": x.numpy()})
    np.testing.assert_allclose(written, ExactTwin(quantized, x)(x).numpy(), atol=1e-6)
