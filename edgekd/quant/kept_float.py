"""The fewest layers that must stay in float for a network to keep its answers, found by measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekd.errors import PreconditionError
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.sensitivity import LayerSensitivity


@dataclass(frozen=True)
class KeptFloat:
    """A layer that stays in float, and what that costs.

    Attributes:
        kl: its own sensitivity (that of its block where blocks were measured).
        macs_share: of the multiply-accumulates of all quantized layers, 0 to 1.
    """

    name: str
    reason: str
    kl: float
    macs_share: float


@dataclass(frozen=True)
class Relaxed:
    """``model`` has the ``kept`` layers in float; ``met`` says whether its ``score`` reaches the target."""

    model: QuantizedModel
    kept: tuple[KeptFloat, ...]
    score: float
    met: bool


def keep_in_float(
    model: QuantizedModel,
    ranking: Sequence[LayerSensitivity],
    *,
    rebuild: Callable[[dict[str, str]], QuantizedModel],
    evaluate: Callable[[QuantizedModel], float],
    target: float,
    most: int,
    macs: dict[str, int],
) -> Relaxed:
    """Leave the most sensitive layers in float, as few as the target allows, at most ``most``.

    The number is doubled until the target holds and then halved back: accuracy is taken to rise with it.
    Where no number reaches it, the best that was seen is returned.

    Args:
        ranking: of :func:`layer_sensitivity`; a block goes back as a whole.
        rebuild: makes the network with the given layers (and reasons) in float.
        evaluate: its score, higher is better.
        macs: per layer, for the cost.
    """
    usable = _prefixes(ranking, most)
    total = max(sum(macs.values()), 1)
    tried: dict[int, Relaxed] = {}

    def attempt(count: int) -> Relaxed:
        if count not in tried:
            kept = tuple(
                KeptFloat(name, _reason(entry), entry.kl, macs.get(name, 0) / total)
                for entry in ranking[:count]
                for name in entry.layers
            )
            try:
                candidate = rebuild({each.name: each.reason for each in kept}) if kept else model
                score = evaluate(candidate)
            except PreconditionError:  # the rest cannot stand alone
                return Relaxed(model, (), float("-inf"), False)
            tried[count] = Relaxed(candidate, kept, score, score >= target)
        return tried[count]

    low, high = 0, 1
    attempt(0)
    while high <= usable and not attempt(high).met:
        low, high = high, 2 * high
    if high > usable and usable > low and not attempt(usable).met:
        return max(tried.values(), key=lambda each: (each.score, -len(each.kept)))
    high = min(high, usable)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if attempt(middle).met else (middle, high)
    met = [each for each in tried.values() if each.met]
    if met:
        return min(met, key=lambda each: len(each.kept))
    return max(tried.values(), key=lambda each: (each.score, -len(each.kept)))


def _prefixes(ranking: Sequence[LayerSensitivity], most: int) -> int:
    """How many entries of the ranking together hold at most ``most`` layers."""
    layers = 0
    for count, entry in enumerate(ranking):
        layers += len(entry.layers)
        if layers > most:
            return count
    return len(ranking)


def _reason(entry: LayerSensitivity) -> str:
    return f"quantized alone it moves the answers by {entry.kl:.2g} nats and agrees on {entry.agreement:.1%}"
