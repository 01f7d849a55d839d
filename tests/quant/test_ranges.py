"""Ranges: calibrated, followed, learned, frozen, and never outside what the activation allows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import PreconditionError
from edgekd.quant.fake_quant import ActivationQuantizer
from edgekd.quant.kernels import fake_quantize, fake_quantize_learned, fake_quantize_weight
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES

U8 = SCHEMES["u8s8"]


class Net(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.act = activation
        self.last = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.conv(x))).mean((2, 3))


def quantized(activation: nn.Module | None = None, **options: object) -> QuantizedModel:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    model = prepare_qat(Net(activation or nn.ReLU()), x, U8, **options)  # type: ignore[arg-type]
    model.calibrate([x])
    return model


def ranges(model: QuantizedModel) -> list[tuple[float, float]]:
    return [(q.low.item(), q.high.item()) for q in model.activation_quantizers()]


def test_calibration_takes_the_extremes_of_all_batches_and_forgets_older_ones() -> None:
    model = quantized()
    low, high = torch.full((1, 3, 8, 8), -2.5), torch.full((1, 3, 8, 8), 4.0)
    assert model.calibrate([low, high]) == 2
    assert ranges(model)[0] == (-2.5, 4.0)
    assert model.calibrate([high]) == 1
    assert ranges(model)[0] == (0.0, 4.0), "the range contains zero, and nothing of the calibration before"


def test_calibration_restores_the_mode_of_every_module() -> None:
    model = quantized()
    model.train()
    model.model.act.eval()
    model.calibrate([torch.randn(2, 3, 8, 8)])
    assert model.training and model.model.conv.training and not model.model.act.training


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_calibration_names_the_first_call_that_is_not_finite(value: float) -> None:
    model = quantized()
    with torch.no_grad():
        model.model.conv.bias[0] = value
    with pytest.raises(PreconditionError, match=r"act:relu.*not finite") as caught:
        model.calibrate([torch.randn(2, 3, 8, 8)])
    assert "\n" not in str(caught.value)


def test_calibration_without_samples_is_refused() -> None:
    with pytest.raises(PreconditionError, match="no sample"):
        quantized().calibrate([])


def test_a_moving_average_follows_and_a_frozen_range_does_not() -> None:
    model = quantized()
    model.set_phase("train")
    model.train()
    before = ranges(model)[0][1]
    model(torch.full((2, 3, 8, 8), 50.0))
    moved = ranges(model)[0][1]
    assert before < moved == pytest.approx(before + 0.01 * (50.0 - before), rel=1e-5)
    model.eval()
    model(torch.full((2, 3, 8, 8), 500.0))
    assert ranges(model)[0][1] == moved, "evaluation moves nothing"
    model.train()
    model.set_phase("frozen")
    model(torch.full((2, 3, 8, 8), 500.0))
    assert ranges(model)[0][1] == moved


def test_learned_ranges_receive_gradients_move_and_stop_when_frozen() -> None:
    model = quantized(ranges="learned")
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(8, 3, 8, 8)
    before = ranges(model)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    for quantizer in model.activation_quantizers():
        assert quantizer.high.grad is not None and float(quantizer.high.grad) != 0.0
    assert any(q.low.grad is not None and float(q.low.grad) != 0.0 for q in model.activation_quantizers())
    assert all(a != b for a, b in zip(ranges(model), before, strict=True))
    model.set_phase("frozen")
    optimizer.zero_grad()
    model(x).square().sum().backward()
    assert all(q.high.grad is None for q in model.activation_quantizers())


@pytest.mark.parametrize("kind", ["moving-average", "learned"])
def test_a_range_after_relu6_never_leaves_the_clip(kind: str) -> None:
    model = quantized(nn.ReLU6(), ranges=kind)
    quantizer = model.activation_quantizers()[1]
    assert quantizer.bounds == (0.0, 6.0)
    with torch.no_grad():
        quantizer.low.fill_(-3.0)
        quantizer.high.fill_(9.0)
    scale, zero_point = quantizer.numbers()
    assert zero_point == 0 and scale * 255 == pytest.approx(6.0, rel=1e-6)
    if kind == "learned":  # a range outside the clip can come back
        model.train()
        model(torch.randn(8, 3, 8, 8) * 100).sum().backward()
        assert float(quantizer.high.grad) != 0.0


@pytest.mark.parametrize(
    ("activation", "bounds"),
    [(nn.ReLU(), (0.0, math.inf)), (nn.Hardtanh(-2, 3), (-2.0, 3.0)), (nn.Hardtanh(0, 4), (0.0, 4.0))],
)
def test_bounds_are_read_off_the_call(activation: nn.Module, bounds: tuple[float, float]) -> None:
    assert quantized(activation).activation_quantizers()[1].bounds == bounds


@pytest.mark.parametrize(
    "clip", [lambda x: F.relu6(x), lambda x: x.clamp(0, 6), lambda x: x.clamp(max=6, min=0)]
)
def test_functional_clips_bound_as_well(clip: object) -> None:
    class Clip(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return clip(x)  # type: ignore[operator]

    assert quantized(Clip()).activation_quantizers()[1].bounds == (0.0, 6.0)


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8"])
def test_the_cpu_kernel_is_torch_s_own_operator(scheme: str) -> None:
    quantizer = ActivationQuantizer(SCHEMES[scheme], "moving-average")
    quantizer.low.fill_(-1.3)
    quantizer.high.fill_(2.1)
    scale, zero_point = quantizer.numbers()
    qmin, qmax = quantizer.scheme.activation_min, quantizer.scheme.activation_max
    x = torch.linspace(-4, 4, 5001, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    ours = fake_quantize(x, scale, zero_point, qmin, qmax)
    theirs = torch.fake_quantize_per_tensor_affine(twin, scale, zero_point, qmin, qmax)
    assert torch.equal(ours, theirs)
    weights = torch.randn(5001)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    assert torch.equal(x.grad, twin.grad) and 0 < int((x.grad == 0).sum()) < 5001


def test_the_learned_kernel_has_torch_s_gradients() -> None:
    x = torch.randn(4000, requires_grad=True)
    pair = [torch.tensor(0.013, requires_grad=True), torch.tensor(97.3, requires_grad=True)]
    twin = [t.detach().clone().requires_grad_() for t in (x, *(p.reshape(1) for p in pair))]
    weights = torch.randn(4000)
    ours = fake_quantize_learned(x, pair[0], pair[1], 0, 255, 0.5)
    theirs = torch._fake_quantize_learnable_per_tensor_affine(twin[0], twin[1], twin[2], 0, 255, 0.5)
    torch.testing.assert_close(ours, theirs)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(x.grad, twin[0].grad)
    torch.testing.assert_close(pair[0].grad, twin[1].grad.squeeze(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(pair[1].grad, twin[2].grad.squeeze(), rtol=1e-3, atol=1e-3)


def test_the_weight_kernel_keeps_zeros_and_passes_every_gradient() -> None:
    weight = torch.randn(6, 4, 3, 3, requires_grad=True)
    with torch.no_grad():
        weight[:, ::2] = 0.0
        weight[3] = 0.0
    scale = weight.detach().flatten(1).abs().amax(1).clamp_min(1e-8) / 127
    result = fake_quantize_weight(weight, scale)
    zero = torch.zeros(6, dtype=torch.int32)
    assert torch.equal(result, torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127))
    assert (result[:, ::2] == 0).all()
    result.sum().backward()
    assert (weight.grad == 1).all()


def test_a_tensor_that_is_always_zero_gets_a_usable_scale() -> None:
    quantizer = ActivationQuantizer(U8, "moving-average")
    quantizer(torch.zeros(4))
    scale, zero_point = quantizer.numbers()
    assert scale == pytest.approx(1 / 255) and zero_point == 0


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8"])
def test_the_path_of_a_gpu_gives_the_same_values(scheme: str) -> None:
    """There scale and zero point stay tensors; the arithmetic can be checked on any machine."""
    quantizer = ActivationQuantizer(SCHEMES[scheme], "learned", bounds=(0.0, 6.0))
    with torch.no_grad():
        quantizer.low.fill_(-0.4)
        quantizer.high.fill_(3.7)
    qmin, qmax = quantizer.scheme.activation_min, quantizer.scheme.activation_max
    x = torch.linspace(-1, 8, 2000)
    scale, zero_point = (value.detach() for value in quantizer._differentiable())
    assert torch.equal(
        fake_quantize(x, scale, zero_point, qmin, qmax), fake_quantize(x, *quantizer.numbers(), qmin, qmax)
    )
