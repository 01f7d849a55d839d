"""What a text model makes of the length of its input, tried before anything is trained or written.

A file takes texts of any length. Some encoders work theirs out in Python (Funnel's positions), which a trace
freezes: their file would be right at one length alone. Others let padding into their answer (convolutions over
tokens, landmarks, hashes), so that what a text gets depends on the longest one of its batch.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError, fault
from edgekd.models.evaluating import evaluating
from edgekd.preprocess_text import TextPreprocess

_LONG, _PADS = 12, 3  # tokens
_TOLERANCE = 1e-3  # of the largest logit: sums in another order


def check_lengths(module: nn.Module, preprocess: TextPreprocess, where: str) -> list[str]:
    """Four forward passes and a trace of a few tokens.

    Returns:
        A note where padding moves the answer; else nothing.

    Raises:
        ModelError: a traced copy answers otherwise at another length.
    """
    longer = min(preprocess.max_length, _LONG)
    shorter = longer // 2
    if shorter <= _PADS:
        return []
    ids = torch.from_numpy(preprocess.example(2, longer))
    with evaluating(module), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            traced = torch.jit.trace(module, (ids[:, :shorter],), check_trace=False)
        except (RuntimeError, ValueError, TypeError):
            return []  # cannot be traced at all: the export says why
        answer: Tensor = module(ids)
        try:
            frozen = _apart(traced(ids), answer)
        except RuntimeError:  # shapes that fit one length alone
            frozen = float("inf")
        if frozen > _TOLERANCE:
            raise ModelError(
                fault(where, f"the encoder's code freezes the sequence length: traced with {shorter} tokens, "
                             f"it answers {longer} otherwise", got=f"{frozen:.2g} of the largest logit apart",
                      allowed="an encoder whose traced copy takes any length",
                      fix="take another architecture (BERT, DistilBERT, ELECTRA, MPNet, ModernBERT)")
            )  # fmt: skip
        padded = ids.clone()
        padded[:, -_PADS:] = preprocess.pad_id
        moved = _apart(module(padded), module(padded[:, :-_PADS]))
    if moved <= _TOLERANCE:
        return []
    share = f"{moved:.1%} of the largest logit with {_PADS} tokens of it"
    return [
        f"the encoder lets padding into its answer ({share}): what a text gets depends on the longest of its batch; "
        "give it texts one at a time, or all of one length"
    ]


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(torch.finfo(b.dtype).tiny))
