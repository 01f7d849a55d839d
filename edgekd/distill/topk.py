"""A row of logits as its K largest log-probabilities, and back.

Kan Wu, Jinnian Zhang, Houwen Peng, Mengchen Liu, Bin Xiao, Jianlong Fu, Lu Yuan, "TinyViT: Fast Pretraining
Distillation for Small Vision Transformers", ECCV 2022, arXiv 2207.10666, section 3.1: the probability that
the K kept classes leave over is spread evenly over the other classes.

Deviation: the paper stores probabilities; log-probabilities keep the ratio of small ones in 16 bits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_SMALLEST = float(torch.finfo(torch.float16).min)
_SMALLEST_REST = np.float32(1e-7)


def class_dtype(classes: int) -> np.dtype:
    """int16 where it holds every class index, else int32."""
    return np.dtype(np.int16 if classes <= np.iinfo(np.int16).max else np.int32)


def encode(logits: Tensor, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The K largest log-probabilities of each row and their classes.

    Args:
        logits: ``(batch, classes)``, any float type and device; log-probabilities serve as well.
        top_k: K <= classes.

    Returns:
        float16 ``(batch, K)``, falling along the row, and class indices ``(batch, K)``.
    """
    values, classes = torch.log_softmax(logits.detach().float(), dim=1).topk(top_k, dim=1)
    values = values.clamp(min=_SMALLEST).half()
    return values.cpu().numpy(), classes.cpu().numpy().astype(class_dtype(logits.shape[1]))


def decode(values: np.ndarray, indices: np.ndarray, classes: int) -> Tensor:
    """Log-probabilities of all classes; each row's probabilities sum to 1.

    Args:
        values, indices: of :func:`encode`, ``(batch, K)``.
        classes: how many there are; K == classes gives back the row to within float16.

    Returns:
        float32 ``(batch, classes)`` on the CPU.
    """
    # numpy: for so few numbers torch's threads cost more than they save.
    kept = values.astype(np.float32)
    others = classes - kept.shape[1]
    mass = np.exp(kept).sum(axis=1, keepdims=True)
    # float16 may round the kept mass up to 1: the others keep a share that is small but not zero.
    rest = np.maximum(1.0 - mass, _SMALLEST_REST) if others else np.zeros_like(mass)
    total = np.log(mass + rest)
    full = np.empty((len(kept), classes), np.float32)
    if others:
        full[:] = np.log(rest / others) - total
    np.put_along_axis(full, indices.astype(np.int64), kept - total, axis=1)
    return torch.from_numpy(full)
