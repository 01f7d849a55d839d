"""Which channels may be permuted: proposals that are tried out before they are believed.

Each proposed set is permuted on a copy in float64 in which every weight that training may have left at zero
(batch-norm gammas, layer scales) is visible. It is used only if permuting the readers alone changes the
answers, and permuting everything that is coupled does not.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn

from edgekd.prune.channels import ChannelGroup, permute_group
from edgekd.prune.coupling import Untraceable, propose_groups

# Relative to the largest answer, in float64: rounding is about 1e-15, a wrong permutation 1e-3 and more.
_TOLERANCE = 1e-9


def find_channel_groups(
    module: nn.Module, example: Tensor, readers: Collection[str]
) -> tuple[list[ChannelGroup], list[tuple[str, str]]]:
    """The channel sets that may be permuted and that at least one of ``readers`` has as its input.

    Args:
        module: not changed.
        example: one input batch.
        readers: the layers whose input order matters.

    Returns:
        The groups, and (root layer, reason) of the sets that ``readers`` read but that cannot be permuted.

    Raises:
        Untraceable: torch-pruning fails on this model, it does not run in float64, or it does not answer with
            one finite tensor.
    """
    trial = copy.deepcopy(module).eval().requires_grad_(True)
    proposals = propose_groups(trial, example[:1], readers)
    trial = trial.requires_grad_(False)
    example = make_visible(trial, example)
    expected = _answers(trial, example)
    groups: list[ChannelGroup] = []
    skipped: list[tuple[str, str]] = []
    for group, reason in proposals:
        reason = reason or _try_out(trial, group, example, expected)
        if reason is None:
            groups.append(group)
        else:
            skipped.append((group.root, reason))
    return groups, skipped


@torch.no_grad()
def make_visible(trial: nn.Module, example: Tensor) -> Tensor:
    """Give every vector of ``trial`` values that differ by channel, normalise its activations, go to float64.

    A fresh residual net has gammas of 0, which would hide any mistake in that branch; saturated activations
    would hide it too, so batch norms take the statistics of two random inputs.

    Returns:
        The first of those inputs, ``(1, ...)``, float64; integer inputs (tokens) are taken from ``example``.
    """
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trial.named_parameters():
        if parameter.numel() > 1 and (parameter.dim() == 1 or bool(parameter.min() == parameter.max())):
            low = -0.5 if name.endswith("bias") else 0.5
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + low)
        elif parameter.numel() == 1:
            parameter.fill_(0.7)
    trial.double()
    if example.is_floating_point():
        noise = torch.randn(2, *example.shape[1:], generator=generator, dtype=torch.float64)
        example = noise.to(example.device)
    norms = [part for part in trial.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    _answers(trial, example)
    for norm in norms:
        norm.eval()
    return example[:1]


@torch.no_grad()
def _answers(trial: nn.Module, example: Tensor) -> Tensor:
    try:
        answers = trial(example)
    except (RuntimeError, TypeError, ValueError) as error:
        raise Untraceable(f"the model does not run in float64 ({type(error).__name__})") from error
    if not isinstance(answers, Tensor) or not torch.isfinite(answers).all():
        raise Untraceable("the model does not answer with one tensor of finite numbers")
    return answers


def _try_out(trial: nn.Module, group: ChannelGroup, example: Tensor, expected: Tensor) -> str | None:
    """Why ``group`` cannot be permuted, or None. Leaves ``trial`` as it was."""
    order = torch.randperm(group.channels, generator=torch.Generator().manual_seed(group.channels))
    back = order.argsort()

    def same() -> bool:
        difference = (_answers(trial, example) - expected).abs().max()
        return bool(difference <= _TOLERANCE * expected.abs().max())

    permute_group(trial, group, order, sides=("in",))
    hidden = same()
    permute_group(trial, group, order, sides=("out",))
    whole = same()
    permute_group(trial, group, back)
    if not whole:
        return "moving them changes the answers"
    return "the answers do not depend on their order, so it cannot be tried out" if hidden else None
