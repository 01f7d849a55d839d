"""How much a unit matters, over everything that is coupled to it.

Each coupled tensor gives one score per unit; divided by the tensor's mean, so that no layer outshouts the
others, they are added (DepGraph's group importance: Fang et al., CVPR 2023, arXiv 2301.12900, section 3.3).

``l1``: sum of ``|w|``. Hao Li, Asim Kadav, Igor Durdanovic, Hanan Samet, Hans Peter Graf, "Pruning Filters for
Efficient ConvNets", ICLR 2017, arXiv 1608.08710; extended here from the filter to all that reads it.
``l2``: root of the sum of squares, otherwise as ``l1``.
``taylor``: ``(sum of g * w)^2``, the first-order estimate of the squared change of the loss. Pavlo Molchanov, Arun
Mallya, Stephen Tyree, Iuri Frosio, Jan Kautz, "Importance Estimation for Neural Network Pruning", CVPR 2019,
arXiv 1906.10771, equation 8.
``bn-scale``: ``|gamma|`` of the batch norms. Zhuang Liu, Jianguo Li, Zhiqiang Shen, Gao Huang, Shoumeng Yan,
Changshui Zhang, "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017,
arXiv 1708.06519 (without its L1 penalty on gamma during training). A set without batch norm goes by ``l2``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import PreconditionError, fault
from edgekd.prune.units import Slice, UnitGroup

UnitSaliency = Literal["l1", "l2", "taylor", "bn-scale"]


@torch.no_grad()
def unit_scores(
    module: nn.Module,
    groups: Sequence[UnitGroup],
    saliency: UnitSaliency,
    gradients: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Root of each set to its scores ``(units,)``, float64 on the CPU, of mean 1; the least goes first.

    Args:
        gradients: of the loss by parameter name, for ``taylor``: :func:`collect_gradients`.

    Raises:
        PreconditionError: ``taylor`` without gradients, weights that are not finite.
    """
    if saliency == "taylor" and not gradients:
        raise PreconditionError(fault("prune.saliency", "taylor needs calibration batches, got none"))
    tensors = dict(module.named_parameters())
    gammas = {
        f"{name}.weight" for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    }  # fmt: skip
    found = {}
    for group in groups:
        chosen = [
            piece for piece in group.slices if piece.tensor in tensors and _counts(piece, tensors, gammas)
        ]
        measure = saliency
        if saliency == "bn-scale":
            norms = [piece for piece in group.slices if piece.tensor in gammas]
            chosen, measure = (norms, "l1") if norms else (chosen, "l2")
        total = torch.zeros(group.units, dtype=torch.float64)
        for piece in chosen:
            gradient = gradients.get(piece.tensor) if gradients else None
            total += _score(tensors[piece.tensor], piece, group.units, measure, gradient)
        if not torch.isfinite(total).all():
            raise PreconditionError(fault(group.root, "the weights are not finite numbers"))
        found[group.root] = total / total.mean().clamp_min(1e-30)
    return found


def _counts(piece: Slice, tensors: Mapping[str, Tensor], gammas: set[str]) -> bool:
    """Weights of layers and gammas count; biases and position tables do not."""
    if piece.dim < 0:
        return False
    return piece.tensor in gammas or (piece.role in ("write", "read") and tensors[piece.tensor].dim() > 1)


def _score(weight: Tensor, piece: Slice, units: int, saliency: str, gradient: Tensor | None) -> Tensor:
    value = weight.detach().double().cpu()
    if saliency == "taylor":
        value = value * gradient.double().cpu() if gradient is not None else torch.zeros_like(value)
    elif saliency == "l1":
        value = value.abs()
    else:
        value = value.square()
    by_position = value.movedim(piece.dim, 0).flatten(1).sum(1) if value.dim() > 1 else value
    index = torch.tensor(piece.units)
    sums = torch.zeros(units, dtype=torch.float64)
    sums.index_add_(0, index, by_position[torch.tensor(piece.positions)])
    if saliency == "taylor":
        sums = sums.square()
    elif saliency == "l2":
        sums = sums.sqrt()
    return sums / sums.mean().clamp_min(1e-30)


def collect_gradients(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Gradients of the cross-entropy, averaged over the batches, by parameter name.

    Args:
        module: in evaluation mode afterwards; its own gradients are empty afterwards.
        batches: inputs and int64 labels ``(batch,)``; -1 stands for the model's own answer.
    """
    module.eval()
    module.zero_grad(set_to_none=True)
    count = 0
    for inputs, labels in batches:
        logits = module(inputs)
        labels = torch.where(labels >= 0, labels, logits.detach().argmax(1))
        F.cross_entropy(logits, labels).backward()
        count += 1
    found = {
        name: parameter.grad.detach().clone() / count
        for name, parameter in module.named_parameters() if parameter.grad is not None
    }  # fmt: skip
    module.zero_grad(set_to_none=True)
    return found
