"""What other activations would give a deployed file, as a fact of the run and as a sentence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekd.report.format import listing, milliseconds, plural, ratio, span

_NAMES = {"silu": "SiLU", "gelu": "GELU", "hardswish": "HardSwish", "relu": "ReLU"}
_Positive = Annotated[float, Field(gt=0)]


class ExchangeFacts(BaseModel):
    """The deployed file beside one of the same network with other activations, whose accuracy nobody knows yet.

    Attributes:
        activations: how many of each, by name.
        instead: what stood in their place.
        kind: of both latencies.
        speedup: how many times as fast; ``interval`` over rounds, of measurements alone.
        setting: what to write to have it.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    activations: dict[str, int]
    instead: str
    kind: Literal["measured", "estimated"]
    deployed_ms: _Positive
    exchanged_ms: _Positive
    speedup: _Positive
    interval: tuple[_Positive, _Positive] | None = None
    threads: int
    setting: str


def exchange_sentence(found: ExchangeFacts) -> str:
    """One line for people: what, how much and how known, what it does not say, how to have it."""
    names = [f"{_NAMES.get(name, name)} ({count})" for name, count in found.activations.items()]
    gain = f"{ratio(found.speedup)} as fast"
    if found.interval is not None:
        gain += f", {span(*found.interval)} over rounds"
    before, after = (milliseconds(value, found.kind) for value in (found.deployed_ms, found.exchanged_ms))
    return (
        f"{listing(names)} cost time in integers. With {_NAMES.get(found.instead, found.instead)} in their place this "
        f"network takes {after} and not {before} ({gain}; {found.kind}, {plural(found.threads, 'thread')}). Accuracy: "
        f"not known, training has to make up for it; so nothing was exchanged. To try it: {found.setting}"
    )
