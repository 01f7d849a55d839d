"""Mixup and CutMix of a batch, replayed from a state.

H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412. S. Yun et al.,
"CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
arXiv:1905.04899. Both through timm: a sample is mixed with its mirror in the batch.
"""

from __future__ import annotations

import torch

from edgekd.data.image_augment import kept_generators, seed_generators
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.recipe_stages import AugmentRecipe


def is_mixing(augment: AugmentRecipe) -> bool:
    return augment.mixup > 0 or augment.cutmix > 0


def mix_batch(
    inputs: torch.Tensor, labels: torch.Tensor, classes: int, augment: AugmentRecipe, state: int
) -> torch.Tensor | None:
    """Mix ``inputs`` ``(n, channels, height, width)`` in place.

    Returns:
        The targets, float32 ``(n, classes)``; None where the labels are unknown (-1). An odd batch's last
        sample stays as it is.
    """
    ensure_torchvision_ops()
    from timm.data import Mixup
    from torch.nn.functional import one_hot

    labelled = bool((labels >= 0).all())
    known = labels if labelled else torch.zeros_like(labels)
    targets = one_hot(known, max(classes, 1)).to(torch.float32)
    even = len(inputs) - len(inputs) % 2
    if even:
        mixup = Mixup(augment.mixup, augment.cutmix, label_smoothing=0.0, num_classes=max(classes, 1))
        with kept_generators():
            seed_generators(state)
            _, targets[:even] = mixup(inputs[:even], known[:even])
    return targets if labelled else None
