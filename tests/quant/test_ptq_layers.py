"""Bias correction, smoothing, sensitivity, tuning: on small nets where the right answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import PreconditionError
from edgekd.quant.absorb import find_pairs, move_scale, rows
from edgekd.quant.fidelity import answers, fidelity
from edgekd.quant.kept_float import keep_in_float
from edgekd.quant.observe import observe
from edgekd.quant.partial import leave_in_float
from edgekd.quant.ptq import bias_corrections, set_ranges, shift_biases
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES
from edgekd.quant.sensitivity import LayerSensitivity, group_layers, layer_sensitivity
from edgekd.quant.simulate import range_key
from edgekd.quant.smooth import scale_of, smooth
from edgekd.quant.tuning import tune
from edgekd.quant.zero_share import zero_shares


class Convs(nn.Module):
    """A chain with a depthwise and a grouped convolution, whose inputs have means far from zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.depth = nn.Conv2d(16, 16, 3, groups=16)
        self.group = nn.Conv2d(16, 16, 3, groups=4)
        self.head = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.group(F.relu(self.depth(F.relu(self.stem(x))))))
        return self.head(x.mean((2, 3)))


class Tokens(nn.Module):
    """Layer norms read by a linear layer, by two, by a convolution, and by something that cannot absorb."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(16) for _ in range(4))
        self.q, self.k = nn.Linear(16, 16), nn.Linear(16, 16)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:  # (batch, 16, 6, 6)
        x = x.flatten(2).transpose(1, 2)
        y = self.norm1(x)
        x = x + F.softmax(self.q(y) @ self.k(y).transpose(1, 2), -1) @ x
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        y = self.norm3(x).transpose(1, 2).reshape(-1, 16, 6, 6)
        x = x + self.conv(y).flatten(2).transpose(1, 2)
        y = self.norm4(x)
        return self.head(y.mean(1)) + y.amax((1, 2))[:, None]


def net(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = kind().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    return model


def images(count: int = 64, channels: int = 3, size: int = 12) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2


def ptq(model: nn.Module, x: Tensor, **options: object) -> tuple[QuantizedModel, object]:
    quantized = prepare_qat(model, x[:2], SCHEMES["u8s8"], **options).eval()  # type: ignore[arg-type]
    seen = observe(quantized, x.split(16))
    set_ranges(quantized, seen, "mse")
    return quantized, seen


def test_observing_leaves_the_model_as_it_was() -> None:
    x = images()
    quantized = prepare_qat(net(Convs), x[:2], SCHEMES["u8s8"])
    quantized.train()
    quantized.set_phase("train")
    seen = observe(quantized, x.split(16))
    assert quantized.training and {q.phase for q in quantized.activation_quantizers()} == {"train"}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in quantized.modules())
    assert seen.samples == 64
    torch.testing.assert_close(seen.means["stem"].float(), x.mean((0, 2, 3)))
    assert seen.macs == {"stem": 16 * 27 * 100, "depth": 16 * 9 * 64, "group": 16 * 36 * 36, "head": 96}


def test_samples_that_are_not_finite_or_missing_are_told() -> None:
    x = images(4)
    quantized = prepare_qat(net(Convs), x[:2], SCHEMES["u8s8"])
    with pytest.raises(PreconditionError, match="no sample"):
        observe(quantized, [])
    x[1, 0, 3, 3] = torch.nan
    with pytest.raises(PreconditionError, match=r"input.* is not finite"):
        observe(quantized, [x])


def test_bias_correction_removes_the_mean_error_of_rounding() -> None:
    """With 3-bit weights the mean of each layer's output is off; the layers have no padding, so all of the
    mean error is the weights'."""
    x = images()
    quantized, seen = ptq(net(Convs), x, weight_bits=3)
    corrections = bias_corrections(quantized, seen)  # type: ignore[arg-type]
    assert set(corrections) == {"stem", "depth", "group", "head"}
    for name, inputs in (("stem", x), ("depth", None), ("group", None)):
        layer = quantized.model.get_submodule(name)
        if inputs is None:
            inputs = torch.rand(32, 16, 9, 9) + seen.means[name].float()[:, None, None] - 0.5  # type: ignore[attr-defined]
        quantized.set_phase("off")
        plain = layer(inputs).mean((0, 2, 3))
        quantized.set_phase("frozen")
        off = layer(inputs).mean((0, 2, 3)) - plain
        assert (off - corrections[name]).abs().max() < 0.12 * off.abs().max(), name
    before = fidelity(reference := _float(quantized, x), answers(quantized, [x])).mse
    shift_biases(quantized, corrections, -1)
    assert fidelity(reference, answers(quantized, [x])).mse < 0.6 * before
    shift_biases(quantized, corrections, 1)
    torch.testing.assert_close(fidelity(reference, answers(quantized, [x])).mse, before, rtol=1e-3, atol=0)


def _float(model: QuantizedModel, x: Tensor) -> Tensor:
    model.set_phase("off")
    logits = answers(model, [x])
    model.set_phase("frozen")
    return logits


class Pooled(nn.Module):
    """A norm that sees one vector a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.mean((2, 3))))


def test_smoothing_is_judged_on_samples_that_its_scales_have_not_seen() -> None:
    """The maxima of eight vectors fit them alone: judged on the same eight, a large alpha looks best."""
    x = torch.randn(72, 128, 2, 2, generator=torch.Generator().manual_seed(3))
    model = net(Pooled)
    few, others = x[:8], x[8:]
    (done,) = smooth(model, [few[:5], few[5:]], x[:2], "auto")
    assert done.alpha is None or done.alpha < 0.5
    errors = []
    for each in (model, net(Pooled)):
        quantized = prepare_qat(each, x[:2], SCHEMES["u8s8"]).eval()
        set_ranges(quantized, observe(quantized, [few]), "min-max")
        errors.append(fidelity(_float(quantized, others), answers(quantized, [others])).mse)
    assert errors[0] < 1.2 * errors[1]


def test_smoothing_works_with_one_sample() -> None:
    (done,) = smooth(net(Pooled), [torch.rand(1, 128, 2, 2)], torch.rand(2, 128, 2, 2), "auto")
    assert done.norm == "norm"


def test_a_scale_moves_only_where_all_readers_can_take_it_in() -> None:
    model, x = net(Tokens), images(8, 16, 6)
    pairs = {pair.norm: set(pair.readers) for pair in find_pairs(model, x)}
    assert pairs == {"norm1": {"q", "k"}, "norm2": {"up"}, "norm3": {"conv"}}


def test_moving_scales_keeps_the_function() -> None:
    model, x = net(Tokens), images(8, 16, 6)
    with torch.no_grad():
        before = model(x)
        for pair in find_pairs(model, x):
            move_scale(model, pair, torch.rand(16) * 4 + 0.1)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    assert rows(model.conv).shape == (16 * 9, 16) and rows(model.up).shape == (32, 16)


@pytest.mark.parametrize("alpha", [0.5, "auto"])
def test_smoothing_tames_outlier_channels_and_keeps_the_function(alpha: float | str) -> None:
    x = images(32, 16, 6)
    model = net(Tokens)
    with torch.no_grad():
        for norm in (model.norm1, model.norm2, model.norm3):
            norm.weight[3] *= 60
        before = model(x)
    rough, rough_seen = ptq(net_like(model), x)
    done = smooth(model, [x[:16], x[16:]], x[:2], alpha)
    with torch.no_grad():
        torch.testing.assert_close(model(x), before, rtol=0, atol=2e-3 * float(before.abs().max()))
    assert [each.norm for each in done] == ["norm1", "norm2", "norm3"]
    assert all(each.alpha is not None for each in done)
    smoothed, seen = ptq(model, x)
    error = {
        name: fidelity(before, answers(q, [x])).mse for name, q in (("rough", rough), ("smooth", smoothed))
    }
    assert error["smooth"] < 0.7 * error["rough"], error
    for name in ("q", "k", "up", "conv"):
        assert zero_shares(smoothed, seen)[name] < 0.5 * zero_shares(rough, rough_seen)[name]  # type: ignore[arg-type]


def net_like(model: nn.Module) -> nn.Module:
    other = net(type(model))
    other.load_state_dict(model.state_dict())
    return other


@torch.no_grad()
def sensitive(x: torch.Tensor) -> Convs:
    """One huge weight in each channel of the layer ``group`` leaves no steps for the others."""
    model = net(Convs)
    model.group.weight[:, 0, 0, 0] = 40.0
    mean = F.relu(model.depth(F.relu(model.stem(x)))).mean((0, 2, 3))
    model.group.bias -= 40 * mean[::4].repeat_interleave(4)
    return model


def test_sensitivity_finds_the_layer_that_was_made_sensitive() -> None:
    x = images()
    model = sensitive(x)
    quantized, _ = ptq(model, x)
    quantized.train()
    ranking = layer_sensitivity(quantized, [x])
    assert ranking[0].name == "group" and ranking[0].kl > 3 * ranking[1].kl
    assert {each.name for each in ranking} == {"stem", "depth", "group", "head"}
    assert quantized.training and {q.phase for q in quantized.activation_quantizers()} == {"frozen"}


def test_little_time_measures_blocks() -> None:
    names = ["stem", "a.0.x", "a.0.y", "a.1.x", "b.0.x", "b.0.y", "head"]
    assert list(group_layers(names, 7)) == names
    assert group_layers(names, 5) == {
        "stem": ["stem"], "a.0": ["a.0.x", "a.0.y"], "a.1": ["a.1.x"], "b.0": ["b.0.x", "b.0.y"],
        "head": ["head"],
    }  # fmt: skip
    assert list(group_layers(names, 1)) == ["stem", "a", "b", "head"]
    x = images(8)
    quantized, _ = ptq(net(Convs), x)
    seen: list[tuple[int, int]] = []
    layer_sensitivity(quantized, [x], seconds=1e-9, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)


def test_the_fewest_layers_stay_in_float_and_tell_their_cost() -> None:
    x = images()
    model = sensitive(x)
    with torch.no_grad():
        expected, weight = model(x), model.group.weight.clone()
    quantized, seen = ptq(model, x)
    ranking = layer_sensitivity(quantized, [x])
    worst = -fidelity(expected, answers(quantized, [x])).kl
    built: list[dict[str, str]] = []

    def rebuild(layers: dict[str, str]) -> QuantizedModel:
        built.append(layers)
        return leave_in_float(quantized, layers, x[:2], unrounded=True)

    found = keep_in_float(
        quantized, ranking, rebuild=rebuild, evaluate=lambda m: -fidelity(expected, answers(m, [x])).kl,
        target=worst / 3, most=4, macs=seen.macs,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert found.met and [each.name for each in found.kept] == ["group"]
    assert "group" in found.model.float_layers and found.kept[0].kl == ranking[0].kl
    assert found.kept[0].macs_share == pytest.approx(16 * 36 * 36 / sum(seen.macs.values()))  # type: ignore[attr-defined]
    torch.testing.assert_close(found.model.model.group.weight, weight)
    missed = keep_in_float(
        quantized, ranking, rebuild=rebuild, evaluate=lambda m: -1.0, target=0.0, most=2, macs={}
    )
    assert not missed.met and missed.kept == ()


def test_tuning_stops_at_its_criterion_or_takes_the_best() -> None:
    scores = [0.5, 0.9, 0.97, 0.99]
    asked: list[int] = []

    def evaluate(position: int) -> float:
        asked.append(position)
        return scores[position]

    found = tune(4, evaluate, baseline=1.0, target=0.95, max_trials=10)
    assert asked == [0, 1, 2] and found.best == 2 and found.met
    asked.clear()
    found = tune(4, evaluate, baseline=1.0, target=0.999, max_trials=2)
    assert asked == [0, 1] and found.best == 1 and not found.met
    asked.clear()
    found = tune(4, evaluate, baseline=1.0, target=None, max_trials=10)
    assert asked == [0, 1, 2, 3] and found.best == 3 and found.met
    assert tune(1, lambda position: 0.0, baseline=0.0, target=0.0, max_trials=1).met


def test_fidelity_of_equal_answers_is_perfect() -> None:
    logits = torch.randn(8, 5)
    same = fidelity(logits, logits)
    assert same.agreement == 1 and same.kl < 1e-6 and same.mse == 0
    other = fidelity(logits, logits.roll(1, 1))
    assert other.agreement < 1 and other.kl > 0.1 and other.score < same.score


def test_the_scale_is_the_paper_s() -> None:
    weight = torch.tensor([[1.0, -2.0, 0.0, 3.0], [0.5, 1.0, 0.0, 1.0]])
    largest = torch.tensor([16.0, 4.0, 5.0, 0.0])
    expected = torch.tensor([16**0.75, 4**0.75 / 2**0.25, 1.0, 1.0])
    torch.testing.assert_close(scale_of(weight, largest, 0.75), expected)


def test_a_layer_is_charged_for_the_activation_it_reads() -> None:
    x = images()
    quantized, _ = ptq(net(Convs), x)
    site = next(s for s in quantized.placement.inputs if s.module == "depth")
    quantizer = quantized.quantizers[range_key(quantized.placement.inputs[site])]
    quantizer.high.fill_(400.0)
    ranking = layer_sensitivity(quantized, [x])
    assert ranking[0].name == "depth" and ranking[0].kl > 10 * ranking[1].kl


def test_as_few_as_the_target_allows() -> None:
    """The target holds from five layers on; found by doubling and halving, not one by one."""
    ranking = [LayerSensitivity(f"l{k}", (f"l{k}",), 1 - k / 20, 0.1, 0.9) for k in range(12)]
    built: list[int] = []

    def rebuild(layers: dict[str, str]) -> int:
        built.append(len(layers))
        return len(layers)

    def score(model: object) -> float:
        return 1.0 if isinstance(model, int) and model >= 5 else 0.5

    found = keep_in_float(
        object(), ranking, rebuild=rebuild, evaluate=score, target=0.9, most=12, macs={},  # type: ignore[arg-type]
    )  # fmt: skip
    assert found.met and [each.name for each in found.kept] == [f"l{k}" for k in range(5)]
    assert built == [1, 2, 4, 8, 6, 5]
    found = keep_in_float(
        object(), ranking, rebuild=rebuild, evaluate=score, target=0.9, most=7, macs={},  # type: ignore[arg-type]
    )  # fmt: skip
    assert found.met and len(found.kept) == 5
