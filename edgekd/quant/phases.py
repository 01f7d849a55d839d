"""Use a quantized model for a while in other phases, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgekd.models.evaluating import evaluating
from edgekd.quant.qat import QuantizedModel


@contextmanager
def borrowed(model: QuantizedModel) -> Iterator[None]:
    """Inside, ``model`` is in eval mode and in float; afterwards as before.

    All activations are taken to be in one phase, as ``set_phase`` leaves them.
    """
    quantizers = model.activation_quantizers()
    before = quantizers[0].phase if quantizers else "frozen"
    model.set_phase("off")
    try:
        with evaluating(model):
            yield
    finally:
        model.set_phase(before)
