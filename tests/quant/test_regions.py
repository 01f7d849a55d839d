"""The cheapest cut: integers between convolutions, float between linear layers, whatever surrounds them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgekd.models.calls import record_calls
from edgekd.quant.placement import INPUT, Placement, plan_placement
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES


class Block(nn.Module):
    """A transformer block whose three projections read one normalised tensor."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        h = self.norm1(x)
        q, k, v = (
            layer(h).reshape(batch, tokens, self.heads, -1).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        h = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(h)
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Residual(nn.Module):
    """Convolutions with a shortcut: everything has an integer kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(k, 8, 3, padding=1) for k in (3, 8, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        return self.head(x.mean((2, 3)))


class ScaledShortcut(nn.Module):
    """A float stream (layer norm) that a convolution and an ELU read; layer scale behind a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm([8, 6, 6])
        self.mix, self.grow = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.gamma = nn.Parameter(torch.linspace(-1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        h = nn.functional.elu(self.mix(x))
        h = self.grow(h).mul(self.gamma.reshape(1, -1, 1, 1))
        return nn.functional.elu(x) + h


def placed(net: nn.Module, x: Tensor, **options: object) -> Placement:
    return plan_placement(record_calls(net.eval(), x), **options)  # type: ignore[arg-type]


def sites(placement: Placement) -> set[str]:
    return {str(site) for site in placement.points}


def test_in_a_transformer_what_linear_layers_read_and_write_is_quantized_and_nothing_else() -> None:
    placement = placed(Block(), torch.randn(2, 5, 16))
    # The three projections share the range and the rounding of one normalised tensor.
    read = {"norm1:layer_norm", "<root>:matmul#1", "norm2:layer_norm", "<root>:gelu"}
    written = {f"{layer}:linear" for layer in ("q", "k", "v", "out", "up", "down")}
    # What is only moved keeps its range; the residual stream (add), softmax and scores have none.
    assert {str(site) for site in placement.ranges} == read | written
    assert placement.entries == {}
    assert {site.module for site in placement.inputs} == {"q", "k", "v", "out", "up", "down"}


def test_one_row_is_written_in_float() -> None:
    head = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.ELU())
    assert "3:linear" not in sites(placed(nn.Sequential(*head, nn.Linear(6, 4)), torch.randn(2, 3, 8, 8)))


def test_without_a_layer_norm_the_sums_of_linear_layers_run_in_integers() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

        def forward(self, x: Tensor, normed: bool = False) -> Tensor:
            x = x + self.a(x)
            return self.b((self.norm(x) if normed else x).transpose(1, 2).transpose(1, 2))

    net, x = Plain(), torch.randn(2, 5, 8)
    assert "<root>:add" in sites(placed(net, x))
    net.forward = lambda x: Plain.forward(net, x, normed=True)  # type: ignore[method-assign]
    assert "<root>:add" not in sites(placed(net, x))


def test_between_convolutions_integers_flow_as_in_the_full_placement() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert placed(Residual(), x) == placed(Residual(), x, style="full")
    assert sites(placed(Residual(), x)) >= {str(INPUT), "<root>:relu", "<root>:relu#2"}


@pytest.mark.parametrize(("reader", "rounded"), [(nn.LayerNorm(8), False), (nn.Linear(8, 8), True)])
def test_what_pooling_writes_is_rounded_where_integers_read_it(reader: nn.Module, rounded: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), reader, nn.Linear(8, 4))
    placement = placed(net, torch.randn(2, 3, 8, 8))
    assert ("1:adaptive_avg_pool2d" in sites(placement)) is rounded
    assert {"0:conv2d", str(INPUT)} <= sites(placement)


def test_a_float_stream_is_rounded_for_the_convolution_alone() -> None:
    placement = placed(ScaledShortcut(), torch.randn(2, 8, 6, 6))
    assert [str(site) for site in placement.entries] == ["mix:conv2d"]
    assert "norm:layer_norm" not in sites(placement)
    assert str(placement.entries[next(iter(placement.entries))]) == "norm:layer_norm"


def test_layer_scale_is_before_the_rounding_of_its_convolution() -> None:
    points = sites(placed(ScaledShortcut(), torch.randn(2, 8, 6, 6)))
    assert "<root>:mul" in points and "grow:conv2d" not in points


def test_weighted_leaves_sums_in_float() -> None:
    x = torch.randn(2, 3, 8, 8)
    weighted = placed(Residual(), x, style="weighted")
    assert {site.module for site in weighted.inputs} == {"stem", "a", "b", "head"}
    # The last sum's own rounding is gone; what convolutions write is still rounded.
    assert "b:conv2d" in sites(weighted) and "<root>:relu#2" not in sites(weighted)


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ValueError, match="style must be one of"):
        placed(Residual(), torch.randn(2, 3, 8, 8), style="half")


@pytest.mark.parametrize("build", [Block, Residual, ScaledShortcut])
def test_float_layers_only_take_ranges_away(build: Callable[[], nn.Module]) -> None:
    """What was trained suffices for any file that leaves more layers in float."""
    net = build()
    x = {Block: torch.randn(2, 5, 16), Residual: torch.randn(2, 3, 8, 8)}.get(
        build,
        torch.randn(2, 8, 6, 6),  # type: ignore[call-overload]
    )
    all_ranges = set(placed(net, x).ranges)
    for name, layer in net.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert set(placed(net, x, float_layers=[name]).ranges) <= all_ranges


def test_an_entry_rounds_what_the_layer_reads_and_nothing_else() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, 6, 6)
    model: QuantizedModel = prepare_qat(ScaledShortcut(), x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.eval()
    seen: dict[str, Tensor] = {}
    model.model.mix.register_forward_pre_hook(lambda m, a: seen.update(read=a[0]))
    with torch.no_grad():
        model(x)
    stream = model.model.norm(x)
    # The module is handed the float stream; its convolution rounds it.
    assert torch.equal(seen["read"], stream)
    with torch.no_grad():
        whole = model(x)
        model.placement.entries.clear()
        assert not torch.equal(model(x), whole)
