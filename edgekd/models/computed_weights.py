"""Convolutions that compute the weight they convolve with, replaced by ones that store it.

Weight standardisation (Qiao et al. 2019, arXiv 1903.10520; scaled, in the NFNets of Brock et al. 2021, arXiv
2101.08692) makes a weight anew at every call. Masks and integers belong to the weight that is convolved, and a file
would hold its making.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from edgekd.models.evaluating import evaluating
from edgekd.models.layer_calls import another_input, listening, see_calls


class PaddedConv2d(nn.Conv2d):
    """A convolution that pads each side by its own amount first, as TensorFlow's SAME does.

    Attributes:
        sides: zeros on the left, right, top and bottom.
    """

    sides: tuple[int, int, int, int]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.sides))


@torch.no_grad()
def bake_computed_weights(module: nn.Module, example: Tensor) -> list[str]:
    """Replace them in place; the function that ``module`` computes in eval mode stays the same.

    A layer is left alone where it runs more than once, where its weight depends on what it reads, or where what it
    convolves is not its input with zeros around.

    Args:
        example: one batch that ``module`` takes; images keep its size.

    Returns:
        The names of the replaced layers.
    """
    names = [
        name for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d) and type(layer).forward is not nn.Conv2d.forward
        and not parametrize.is_parametrized(layer) and not isinstance(layer, PaddedConv2d)
    ]  # fmt: skip
    if not names or not example.is_floating_point():
        return []
    given: dict[str, list[Tensor]] = {name: [] for name in names}
    calls: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    hooks = [(module.get_submodule(name), partial(_note_input, given[name])) for name in names]
    with evaluating(module), listening(hooks):
        see_calls(
            module,
            [example[:1], another_input(example)],
            {name: partial(_note_call, calls[name]) for name in names},
        )
    baked = []
    for name in names:
        if len(calls[name]) != 2 or len(given[name]) != 2:
            continue
        first, second = calls[name]
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        if first["weight"] is layer.weight or not torch.equal(first["weight"], second["weight"]):
            continue
        plain = _plain(given[name][1], **second)
        if plain is not None:
            module.set_submodule(name, plain.train(layer.training))
            baked.append(name)
    return baked


def _note_input(found: list[Tensor], layer: nn.Module, args: tuple[Tensor, ...]) -> None:
    found.append(args[0])


def _note_call(
    found: list[dict[str, Any]], x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> None:  # fmt: skip
    found.append({"x": x, "weight": weight, "bias": bias, "stride": stride, "padding": padding,
                  "dilation": dilation, "groups": groups})  # fmt: skip


def _plain(given: Tensor, *, x: Tensor, weight: Tensor, bias: Tensor | None, **call: Any) -> nn.Conv2d | None:
    if isinstance(call["padding"], str):
        return None
    high, wide = (after - before for after, before in zip(x.shape[2:], given.shape[2:], strict=True))
    sides = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
    if min(sides) < 0 or not torch.equal(F.pad(given, sides), x):
        return None
    kind = PaddedConv2d if any(sides) else nn.Conv2d
    inputs = weight.shape[1] * call["groups"]
    plain = kind(inputs, len(weight), weight.shape[2:], bias=bias is not None, **call)  # type: ignore[arg-type]
    if isinstance(plain, PaddedConv2d):
        plain.sides = sides
    plain.weight.copy_(weight)
    if bias is not None:
        assert plain.bias is not None
        plain.bias.copy_(bias)
    return plain.to(weight)
