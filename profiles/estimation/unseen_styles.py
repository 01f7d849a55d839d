"""A runtime on cores of a style that none of its rows ran on: what it adds to its time on the nearest style."""

from __future__ import annotations

from collections.abc import Mapping

from edgekd.profiles.estimation.parameters import Fitted
from edgekd.profiles.estimation.runtimes import PRECISIONS, RuntimeKind

_NEAREST = {
    "in-order": "narrow", "narrow": "wide", "carmel": "wide", "x86-sse": "x86-avx", "x86-avx": "x86-avx2",
    "x86-avx512": "x86-avx2",
}  # fmt: skip


def values_for(fit: Fitted, runtime: RuntimeKind, style: str) -> Mapping[str, float]:
    """The fit's parameters; for a style without rows of the runtime, also those of the nearest one with rows."""
    donor = style
    while donor in _NEAREST and not _has_rows(fit, runtime, donor):
        donor = _NEAREST[donor]
    if donor == style:
        return fit.values
    name = runtime.chain[-1]
    borrowed = {
        f"runtime/{kind}|{name}|{style}": fit.values.get(f"runtime/{kind}|{name}|{donor}", 0.0)
        for kind in PRECISIONS
    }
    return {**fit.values, **borrowed}


def _has_rows(fit: Fitted, runtime: RuntimeKind, style: str) -> bool:
    return any(key.startswith(f"{runtime.chain[0]}|{style}|") for key in fit.evidence)
