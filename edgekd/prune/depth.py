"""Drop whole residual blocks: which can go, which matters least, and how to let them go.

A residual block is recognised by what it does: with all its parameters at zero it returns its input, or its
input behind an activation or a layer norm, which then stands behind the sum. No names, no types.

Songwei Liu, Chao Zeng, Lianqiang Li, Chenqian Yan, Lean Fu, Xing Mei, Fangmin Chen, "FoldGPT: Simple and
Effective Large Language Model Compression Scheme", 2024, arXiv 2407.00928, trains a gate per block
(``y = x + g F(x)``) and drops the blocks with the smallest. Here ``g`` is set to 0 and the change of the
answers is measured, one block after the other (greedy): no training before the choice, and blocks that only
matter together are seen.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.models.surgery import Cut, record_cut, skip_module
from edgekd.prune.proof import attempt
from edgekd.prune.trial import make_visible

_BEHIND_THE_SUM = (F.relu, F.relu6, F.silu, F.gelu, partial(F.gelu, approximate="tanh"), F.hardswish)
_SAME_AFTER_NORM = 1e-3  # what the epsilon of a layer norm may take from values of size 1


def find_blocks(module: nn.Module, example: Tensor) -> list[str]:
    """The residual blocks that the network runs without, in forward order; of nested ones the inner.

    Args:
        module: not changed.
        example: one input batch.
    """
    trial = copy.deepcopy(module).eval().requires_grad_(False)
    example = make_visible(trial, example[:1])
    seen = _record(trial, example)
    shape = seen.pop("")[1].shape
    blocks = [
        name for name, (given, made) in seen.items()
        if given.shape == made.shape and _returns_its_input(trial.get_submodule(name), given)
    ]  # fmt: skip
    inner = [name for name in blocks if not any(other.startswith(f"{name}.") for other in blocks)]
    return [name for name in inner if _runs_without(trial, [name], example, shape)]


def rank_blocks(
    module: nn.Module, blocks: Sequence[str], batches: Sequence[Tensor], count: int
) -> list[tuple[str, float]]:
    """The ``count`` blocks to drop, in that order, each with what the answers changed by.

    Args:
        module: in evaluation mode; as it was afterwards.
        blocks: of :func:`find_blocks`.
        batches: inputs.

    Returns:
        (name, mean KL divergence of the answers from the full network's once it and all before it are gone).
    """
    module.eval()
    expected = _log_probabilities(module, batches)
    gone: list[tuple[str, float]] = []
    for _ in range(count):
        left = [name for name in blocks if name not in [dropped for dropped, _ in gone]]
        costs = {}
        for name in left:
            with _Skipping(module, [*(dropped for dropped, _ in gone), name]):
                answers = _log_probabilities(module, batches)
            costs[name] = float(F.kl_div(answers, expected, log_target=True, reduction="batchmean"))
        least = min(costs, key=lambda name: costs[name])
        gone.append((least, costs[least]))
    return gone


def drop_blocks(module: nn.Module, names: Sequence[str]) -> Cut:
    """Replace the blocks by nothing, in place, and note the cut."""
    for name in names:
        skip_module(module, name)
    return record_cut(module, Cut(skipped=tuple(names)))


class _Skipping:
    """Within the block, the named modules pass their input through."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.parts = [module.get_submodule(name) for name in names]
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        def through(part: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            return args[0] if args else next(iter(kwargs.values()))

        self.handles = [part.register_forward_hook(through, with_kwargs=True) for part in self.parts]

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def _log_probabilities(module: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    return torch.cat([module(batch).double().log_softmax(1) for batch in batches])


@torch.no_grad()
def _record(module: nn.Module, example: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """First tensor given to and returned by each submodule with parameters, by name, in forward order.

    A module that runs twice, is called by keywords alone or answers with several tensors is left out.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    again: set[str] = set()
    names = {part: name for name, part in module.named_modules()}

    def note(part: nn.Module, args: Any, output: Any) -> None:
        name = names[part]
        if name in seen:
            again.add(name)
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            seen[name] = (args[0].clone(), output.clone())

    wanted = [part for part in names if any(True for _ in part.parameters())]
    handles = [part.register_forward_hook(note) for part in wanted]
    try:
        module(example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: pair for name, pair in seen.items() if name not in again}


@torch.no_grad()
def _returns_its_input(block: nn.Module, given: Tensor) -> bool:
    if not any(parameter.dim() > 1 for parameter in block.parameters()):
        return False  # a norm on its own
    silent = copy.deepcopy(block)
    for parameter in silent.parameters():
        parameter.zero_()
    for part in silent.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.running_mean.zero_()
    answers, _ = attempt(lambda: silent(given), given.shape)
    if answers is not None and any(
        torch.equal(answers, behind) for behind in (given, *(act(given) for act in _BEHIND_THE_SUM))
    ):
        return True
    norms = [part for part in silent.modules() if isinstance(part, nn.LayerNorm) and part.elementwise_affine]
    if not norms:
        return False
    for norm in norms:
        norm.weight.fill_(1)
    normal = F.layer_norm(given, given.shape[-1:])
    answers, _ = attempt(lambda: silent(normal), given.shape)
    return answers is not None and bool((answers - normal).abs().max() < _SAME_AFTER_NORM)


@torch.no_grad()
def _runs_without(trial: nn.Module, names: Sequence[str], example: Tensor, shape: torch.Size) -> bool:
    small = copy.deepcopy(trial)
    for name in names:
        skip_module(small, name)
    return attempt(lambda: small(example), shape)[0] is not None
