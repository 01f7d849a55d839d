"""Weight-only quantization: linear layers in 4 or 8 bits, activations in float, on neural-compressor's arithmetic.

``rtn`` rounds to nearest. ``gptq`` lets the weights that are still to be rounded make up for the error of those
that were (E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023, arXiv 2210.17323). ``awq`` scales channels first: :mod:`edgekd.quant.awq`.

Of neural-compressor 3.10 the rounding and GPTQ's solver are used, layer by layer. Its drivers find the layers
by the names of language models' blocks and put modules of their own in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.errors import PreconditionError, RecipeError, fault, nearest
from edgekd.models.calls import record_calls
from edgekd.models.layer_calls import see_inputs
from edgekd.quant.awq import scale_channels, shrink_ranges
from edgekd.quant.compressor import weight_rounding
from edgekd.quant.weight_blocks import Blocks, hold

Algorithm = Literal["rtn", "gptq", "awq"]
_AT_ONCE = 8  # layers whose second moments are in memory together, in the order of execution
_DAMPING = 0.01  # of the mean second moment, as in the paper


def linear_layers(
    model: nn.Module, example: Tensor, group_size: int, exclude: Iterable[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """Names of the linear layers that can be quantized, in the order of execution; and the others, with reason.

    Raises:
        RecipeError: an ``exclude`` pattern matches no linear layer.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    left: dict[str, str] = {}
    for pattern in exclude:
        matched = [name for name in layers if fnmatch(name, pattern)]
        if not matched:
            raise RecipeError(
                fault(
                    "quantize.exclude", "matches no linear layer", got=pattern, fix=nearest(pattern, layers)
                )
            )
        left.update(dict.fromkeys(matched, f"excluded by the recipe: {pattern}"))
    calls = [call for call in record_calls(model, example).calls if call.op == "linear"]
    run = list(dict.fromkeys(call.site.module for call in calls))
    read = {name for call in calls for name in call.parameters}
    for name in run:
        if name not in layers or name in left:
            continue
        if f"{name}.weight" not in read:
            left[name] = "forward() computes the weight"
        elif layers[name].in_features < group_size:
            left[name] = f"{layers[name].in_features} inputs are less than one block of {group_size}"
    return [name for name in run if name in layers and name not in left], left


@torch.no_grad()
def quantize_weights(
    model: nn.Module,
    layers: Sequence[str],
    batches: Sequence[Tensor],
    example: Tensor,
    *,
    bits: int,
    group_size: int,
    algorithm: Algorithm,
    symmetric: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> None:
    """Put every layer of ``layers`` on a grid of ``bits`` with one scale for ``group_size`` inputs, in place.

    Args:
        model: in eval mode.
        layers: in the order of execution.
        batches: inputs ``(batch, ...)``; ``rtn`` reads none.
        watch: called with how many layers are done, and of how many.

    Raises:
        PreconditionError: a layer's inputs are not finite, or leave GPTQ nothing to solve.
    """
    quant_tensor, solver = weight_rounding()

    def rounded(weight: Tensor, quantile: float = 1.0) -> Blocks:
        """``weight`` ``(out, in)`` to nearest; ``quantile``: the share of its range that is kept."""
        integers, scale, zero = quant_tensor(
            weight.detach().float().clone(), bits=bits, group_size=group_size, return_int=True,
            scheme="sym" if symmetric else "asym", quantile=quantile,
        )  # fmt: skip
        if zero is None:  # signed integers
            zero = torch.full_like(scale, 2 ** (bits - 1))
            integers = integers + 2 ** (bits - 1)
        return Blocks(integers.to(torch.uint8), scale.float(), zero.to(torch.uint8), bits, group_size)

    def done(count: int) -> None:
        if watch is not None:
            watch(count, len(layers))

    modules = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    if algorithm == "gptq":
        for start in range(0, len(layers), _AT_ONCE):
            names = layers[start : start + _AT_ONCE]
            solvers = {name: solver(modules[name], modules[name].weight.data, "cpu") for name in names}
            # Second moments of what each layer reads; the layers before these are rounded already.
            see_inputs(
                model, batches, {name: partial(each.add_batch, out=None) for name, each in solvers.items()}
            )
            for name in names:
                hold(modules[name], _solved(name, modules[name], solvers[name], bits, group_size, symmetric))
            done(start + len(names))
        return
    quantiles: dict[str, float] = {}
    if algorithm == "awq":
        inputs = scale_channels(model, layers, batches, example, rounded)
        quantiles = {name: shrink_ranges(modules[name], x, rounded) for name, x in inputs.items()}
    for count, name in enumerate(layers, 1):
        hold(modules[name], rounded(modules[name].weight, quantiles.get(name, 1.0)))
        done(count)


def _solved(
    name: str, layer: nn.Linear, solver: object, bits: int, group_size: int, symmetric: bool
) -> Blocks:
    solver.quantizer.configure(  # type: ignore[attr-defined]
        {"dtype": "int", "bits": bits, "sym": symmetric, "perchannel": True, "mse": False,
         "use_double_quant": False, "double_quant_sym": False}
    )  # fmt: skip
    try:
        scale, _, zero, values = solver.fasterquant(  # type: ignore[attr-defined]
            layer.weight.detach().clone(),
            blocksize=max(128, group_size),
            percdamp=_DAMPING,
            groupsize=group_size,
        )
    except RuntimeError:  # what is not positive definite has no Cholesky factor
        raise PreconditionError(
            fault("quantize: gptq", f"cannot be solved for what {name} reads",
                  fix="more calibration_samples, or algorithm: rtn")
        ) from None  # fmt: skip
    wide, offset = (each.repeat_interleave(group_size, 1)[:, : layer.in_features] for each in (scale, zero))
    integers = ((values / wide).round() + offset).clamp_(0, 2**bits - 1)
    return Blocks(integers.to(torch.uint8), scale.float(), zero.to(torch.uint8), bits, group_size)
