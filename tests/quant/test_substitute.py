"""Activations exchanged because the recipe asks for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edgekd.errors import ModelError, PreconditionError
from edgekd.export.write import export_quantized
from edgekd.models.surgery import Cut, cuts_of, replay_cuts
from edgekd.profiles.session import open_session, run_batches
from edgekd.prune.apply import prune
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import SCHEMES
from edgekd.quant.substitute import exchange, substitute
from edgekd.recipe_stages import QuantizeStage


class Net(nn.Module):
    """SiLU behind a batch norm; a GELU between layers, one before a sum; HardSwish called as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU()
        self.up, self.gelu, self.down = nn.Conv2d(8, 16, 1), nn.GELU(), nn.Conv2d(16, 8, 1)
        self.drop, self.last = nn.Dropout(0.5), nn.GELU()
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x)))
        x = x + self.last(self.down(self.drop(self.gelu(self.up(x)))))
        return self.head(nn.functional.hardswish(x).mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_factors_of_quick_gelu_are_in_the_layers_around_it(net: Net) -> None:
    prune(net, "2:4")
    seen: dict[str, Tensor] = {}
    net.down.register_forward_hook(lambda m, a, result: seen.update(exact=result))
    net(X)
    exact = seen["exact"]
    found = substitute(net, X[:2], {"gelu": "quick-gelu"})
    assert found.exchanged == {"gelu": "gelu -> quick-gelu"}
    assert "sum" not in found.kept and list(found.kept) == ["last"]
    assert isinstance(net.gelu, nn.SiLU) and isinstance(net.last, nn.GELU)
    net(X)
    # x sigmoid(1.702 x) leaves GELU by at most 0.021, which 16 weights add up.
    assert (
        0 < (seen["exact"] - exact).abs().max() < 0.021 * net.down.weight.abs().sum((1, 2, 3)).max() * 1.702
    )
    zeros = (net.down.weight.flatten(1).reshape(8, -1, 4) == 0).sum(-1)
    assert (zeros >= 2).all(), "the mask holds"


def test_silu_becomes_relu_which_disappears(net: Net, tmp_path: Path) -> None:
    found = substitute(net, X[:2], {"silu": "relu", "gelu": "relu"})
    assert Counter(found.exchanged.values()) == {"silu -> relu": 1, "gelu -> relu": 2}
    # 512 values at 0.57 ns, 1,024 + 512 at 0.67.
    assert found.saved_us == pytest.approx((512 * 0.57 + 1536 * 0.67) / 1e3, rel=1e-6)
    assert "1 activation was exchanged as the recipe asks: silu -> relu" in found.sentences()[0]
    model = prepare_qat(net, X[:2], SCHEMES["u8s8"])
    model.calibrate([X])
    model.set_phase("frozen")
    export_quantized(model.eval(), X[:2], tmp_path / "q.onnx", opset=17)
    kinds = Counter(node.op_type for node in onnx.load(str(tmp_path / "q.onnx")).graph.node)
    assert kinds["Relu"] == kinds["Sigmoid"] == kinds["Erf"] == 0, kinds
    with torch.no_grad():
        expected = model(X).numpy()
    assert abs(run_batches(open_session(tmp_path / "q.onnx"), X.numpy()) - expected).max() < 1e-2


def test_a_function_that_a_larger_module_calls_stays_and_says_so(net: Net) -> None:
    found = substitute(net, X[:2], {"hardswish": "relu"})
    assert found.exchanged == {} and found.kept == {"": "hardswish is called by a module that does more"}


def test_what_the_model_lacks_is_refused_with_what_it_has() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.SiLU())
    with pytest.raises(PreconditionError, match=r"no such activation.*gelu.*silu"):
        substitute(net, X[:2], {"gelu": "relu"})
    assert substitute(net, X[:2], {}).exchanged == {} and isinstance(net[1], nn.SiLU)


def test_a_saved_architecture_is_rebuilt_with_its_activations(net: Net) -> None:
    substitute(net, X[:2], {"silu": "hardswish", "gelu": "quick-gelu"})
    (cut,) = cuts_of(net)
    assert cut.after_fold and cut.activations == {"act": "hardswish", "gelu": "silu"}
    fresh = Net().eval()
    replay_cuts(fresh, [Cut.model_validate(cut.model_dump(mode="json"))], where="m")
    assert isinstance(fresh.act, nn.Hardswish) and isinstance(fresh.gelu, nn.SiLU)


def test_a_file_cannot_turn_a_layer_into_an_activation() -> None:
    with pytest.raises(ModelError, match="stem is no activation"):
        replay_cuts(Net(), [Cut(activations={"stem": "relu"})], where="m")


@pytest.mark.parametrize("wrong", [{"silu": "quick-gelu"}, {"hardswish": "hardswish"}, {"relu": "silu"}])
def test_a_recipe_asks_for_what_there_is(wrong: dict[str, str]) -> None:
    assert QuantizeStage().substitute == {}, "never by itself"
    with pytest.raises(ValidationError):
        QuantizeStage(substitute=wrong)


def test_one_name_for_all_takes_what_there_is(net: Net) -> None:
    found = substitute(net, X[:2], "relu")
    assert Counter(found.exchanged.values()) == {"silu -> relu": 1, "gelu -> relu": 2} and list(
        found.kept
    ) == [""]
    plain = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    nothing = substitute(plain, X[:2], "relu")
    assert nothing.exchanged == {} and "no activation was exchanged" in nothing.sentences()[0]
    assert cuts_of(plain) == ()


def test_before_distillation_batch_norms_stay(net: Net) -> None:
    found = exchange(net, X[:2], "relu")
    assert isinstance(net.norm, nn.BatchNorm2d) and isinstance(net.act, nn.ReLU)
    (cut,) = cuts_of(net)
    assert not cut.after_fold and cut.activations == dict.fromkeys(("act", "gelu", "last"), "relu")
    # A stage behind it may name what is gone: it was there when the run began.
    again = exchange(net, X[:2], {"gelu": "relu"})
    assert again.exchanged == {} and again.nothing and len(found.exchanged) == 3
