"""How close a quantized network's answers are to the float network's, on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Fidelity:
    """``agreement`` is the share of samples with the same top-1; ``kl`` the mean Kullback-Leibler divergence
    of the softmax (nats); ``mse`` the squared error of the logits over their variance."""

    agreement: float
    kl: float
    mse: float

    @property
    def score(self) -> float:
        """From 0 to 1 by the divergence. Few samples give few distinct shares, and one of them may be a tie that
        fell the other way by chance: top-1 is for targets, on many samples."""
        return 1 / (1 + self.kl)


@torch.no_grad()
def answers(model: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> Tensor:
    """Logits ``(samples, classes)`` float32."""
    return torch.cat([model(batch).float() for batch in batches])


def fidelity(reference: Tensor, logits: Tensor) -> Fidelity:
    """Compare logits ``(samples, classes)``; ``reference`` is the float network's."""
    same = reference.argmax(1) == logits.argmax(1)
    divergence = F.kl_div(
        logits.log_softmax(1), reference.log_softmax(1), reduction="batchmean", log_target=True
    )
    error = (logits - reference).square().mean() / reference.var(correction=0).clamp_min(1e-12)
    return Fidelity(float(same.float().mean()), max(0.0, float(divergence)), float(error))
