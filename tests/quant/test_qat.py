"""The quantized model: its placement, its phases, and that it stays an ordinary module."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import DeviceError, RecipeError
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.quant.fake_quant import WeightFakeQuant
from edgekd.quant.placement import INPUT
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES, get_scheme


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv1(x)))
        x = F.relu(self.conv2(x) + x)
        return self.head(self.drop(F.adaptive_avg_pool2d(x, 1).flatten(1)))


def quantized(scheme: str = "u8s8", **options: object) -> tuple[QuantizedModel, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 12, 12)
    model = prepare_qat(Block().eval(), x, SCHEMES[scheme], **options)  # type: ignore[arg-type]
    model.calibrate([x])
    model.set_phase("frozen")
    return model.eval(), x


def test_every_value_an_integer_kernel_reads_or_writes_is_quantized() -> None:
    model, _ = quantized()
    places = {f"{site.module}:{site.op}" for site in model.placement.points}
    assert places == {
        ":input", ":relu", "conv2:conv2d", ":add", ":adaptive_avg_pool2d", ":flatten",
    } - {":add"}, "the add's own output passes a ReLU first; the logits stay float"  # fmt: skip
    assert sum(site.op == "relu" for site in model.placement.points) == 2
    shared = {str(site): str(root) for site, root in model.placement.points.items()}
    assert shared["<root>:flatten"] == "<root>:adaptive_avg_pool2d", "moved values keep their scale"


def test_dropout_is_no_place_for_quantization() -> None:
    """While training it scales what it keeps; cutting that to the range would change the function."""
    model, _ = quantized()
    assert not any(site.op == "dropout" for site in model.placement.points)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_every_activation_is_on_its_grid_in_a_real_net(name: str) -> None:
    ensure_torchvision_ops()
    import timm

    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    model = prepare_qat(timm.create_model(name, num_classes=4).eval(), x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    seen: list[int] = []

    def watch(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(len(args[0].unique()))

    layers = [m for m in model.model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for layer in layers:
        layer.register_forward_pre_hook(watch)
    with torch.no_grad():
        model.eval()(x)
    assert len(seen) == len(layers) and max(seen) <= 256
    for layer in layers:
        assert all(len(channel.unique()) <= 255 for channel in layer.weight)


def test_the_sigmoid_inside_a_silu_is_quantized_too() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(inplace=True), nn.Conv2d(4, 4, 3)).eval()
    x = torch.randn(4, 3, 8, 8)
    model = prepare_qat(net, x, SCHEMES["u8s8"])
    model.calibrate([x])
    gate = next(q for key, q in model.quantizers.items() if "silu_gate" in key)
    assert gate.bounds == (0.0, 1.0) and 0.5 < gate.high.item() < 1.0
    seen: list[Tensor] = []
    net[2].register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    model.eval()
    with torch.no_grad():
        for phase in ("frozen", "off"):
            model.set_phase(phase)  # type: ignore[arg-type]
            model(x)
    assert not torch.equal(seen[0], seen[1])
    torch.testing.assert_close(seen[0], seen[1], atol=0.05, rtol=0)
    lone = prepare_qat(nn.Sequential(nn.SiLU(), nn.Tanh()), x, SCHEMES["u8s8"])
    assert not lone.quantizers, "between float operations a SiLU stays whole"


def test_fake_quant_off_is_the_float_network() -> None:
    model, x = quantized()
    model.set_phase("off")
    with torch.no_grad():
        assert torch.equal(model(x), model.model(x))
        plain = model(x)
        model.set_phase("frozen")
        assert not torch.equal(model(x), plain)
        torch.testing.assert_close(model(x), plain, rtol=0.1, atol=0.05)


def test_excluded_layers_stay_float_and_carry_the_reason() -> None:
    model, _ = quantized(exclude=["conv*"])
    assert set(model.float_layers) == {"conv1", "conv2"} and "conv*" in model.float_layers["conv1"]
    assert [name for name, m in model.model.named_modules() if isinstance(m, WeightFakeQuant)] == [
        "head.parametrizations.weight.0"
    ]
    assert INPUT not in model.placement.points


def test_an_exclusion_that_matches_nothing_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"matches no layer.*conv2"):
        quantized(exclude=["cnv2"])


def test_a_weight_that_forward_computes_stays_float_with_the_reason() -> None:
    class Dynamic(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.weight * x.mean(), self.bias)

    model = prepare_qat(
        nn.Sequential(Dynamic(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)),
        torch.randn(2, 3, 8, 8),
        SCHEMES["u8s8"],
    )
    assert model.float_layers == {"0": "forward() computes the weight"}


def test_it_copies_pickles_and_loads_into_a_fresh_one() -> None:
    model, x = quantized()
    with torch.no_grad():
        expected = model(x)
        assert torch.equal(copy.deepcopy(model)(x), expected)
        torch.manual_seed(5)
        fresh = prepare_qat(Block().eval(), x, SCHEMES["u8s8"])
        fresh.load_state_dict(model.state_dict())
        fresh.set_phase("frozen")
        assert torch.equal(fresh.eval()(x), expected)
    assert "low" in next(iter(dict(model.quantizers["root:input:0"].named_buffers())))
    pickle.dumps(model.state_dict())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_training_moves_the_loss_and_keeps_weights_on_the_grid() -> None:
    model, x = quantized()
    model.train()
    model.set_phase("train")
    target = torch.arange(8) % 3
    x = x / 4 + F.one_hot(target, 3)[:, :, None, None]
    model.calibrate([x])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert all(len(channel.unique()) <= 255 for channel in model.model.conv2.weight)


def test_another_runtime_s_scheme_is_a_frozen_copy() -> None:
    model, x = quantized()
    other = model.with_scheme(SCHEMES["s8s8"])
    assert model.scheme.name == "u8s8" and other.scheme.name == "s8s8"
    assert all(q.numbers()[1] == 0 for q in other.activation_quantizers())
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=0.1, atol=0.05)


def test_reduced_range_weights_use_seven_bits() -> None:
    model, _ = quantized()
    reduced = model.with_scheme(SCHEMES["u8s8-reduce-range"])
    for layer in (reduced.model.conv1, reduced.model.conv2, reduced.model.head):
        for channel in layer.weight.detach():
            step = channel.abs().max() / 63
            assert int((channel / step).round().abs().max()) == 63
            torch.testing.assert_close(channel / step, (channel / step).round(), atol=1e-3, rtol=0)


def test_an_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(DeviceError, match="did you mean 'u8s8'"):
        get_scheme("u8s9")


def test_bf16_activations_keep_their_type() -> None:
    model, _ = quantized()
    x = torch.randn(4, dtype=torch.bfloat16)
    assert model.activation_quantizers()[0](x).dtype == torch.bfloat16
