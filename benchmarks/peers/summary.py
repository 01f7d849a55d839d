"""edgekd against the best of its peers, a line a model, and the geometric mean over models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from benchmarks.peers.row import Row

HEADINGS = (
    "model",
    "fastest peer",
    "edgekd is",
    "edgekd same top-1, SQNR",
    "that peer",
    "edgekd agrees more often by",
    "closest peer",
    "edgekd is",
)


@dataclass(frozen=True)
class Versus:
    """One model. Peers in another runtime stay out: what they show is the runtime's.

    Attributes:
        fastest: the peer's row whose file takes least time beside edgekd's.
        closest: the peer's row with the highest agreement with fp32, then the highest SQNR.
    """

    own: Row
    fastest: Row
    closest: Row

    @property
    def speedup(self) -> float:
        """The fastest peer's time over edgekd's: above 1, edgekd's file is faster."""
        assert self.fastest.edgekd_speedup is not None
        return self.fastest.edgekd_speedup.value

    @property
    def loses_more(self) -> bool:
        """Whether edgekd's file is further from fp32 than the fastest peer's, by samples answered alike."""
        return (self.own.agreement or 0.0) < (self.fastest.agreement or 0.0)

    @property
    def surely(self) -> bool:
        """Whether that is more than two standard errors of the samples' differences."""
        gain = self.fastest.edgekd_gain
        return gain is not None and gain.value + 2 * gain.se < 0


def versus(rows: Iterable[Row]) -> list[Versus]:
    """Models in their order; one without edgekd's file, or without a peer's measured beside it, has no line."""
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
    found = []
    for of_model in by_model.values():
        own = next((row for row in of_model if row.peer == "edgekd" and row.p50_ms is not None), None)
        peers = [row for row in of_model if row.runtime == "onnxruntime" and row.edgekd_speedup is not None]
        if own is None or not peers:
            continue
        fastest = min(peers, key=lambda row: row.edgekd_speedup.value if row.edgekd_speedup else 0.0)
        found.append(Versus(own, fastest, max(peers, key=_closeness)))
    return found


def markdown_summary(rows: Iterable[Row]) -> str:
    """The table and a sentence under it; empty where nothing can be compared."""
    lines = versus(rows)
    if not lines:
        return ""
    table = [_line(HEADINGS), _line(["---", "---", "---:", "---:", "---:", "---:", "---", "---:"])]
    table += [_line(_cells(line)) for line in lines]
    mean = geometric_mean([line.speedup for line in lines])
    slower = [line.own.model for line in lines if line.speedup < 1]
    further = [line.own.model for line in lines if line.loses_more]
    surely = [line.own.model for line in lines if line.surely]
    return "\n".join([
        "### edgekd against the best peer of each model", "", *table, "",
        f"Geometric mean over {len(lines)} models: edgekd's file is {mean:.2f} times as fast as the fastest peer's. "
        f"Slower than it: {', '.join(slower) or 'none'}. "
        f"Further from fp32 than it, by top-1: {', '.join(further) or 'none'}; by more than "
        f"two standard errors (behind ±, sample by sample): {', '.join(surely) or 'none'}.", "",
    ])  # fmt: skip


def _closeness(row: Row) -> tuple[float, float]:
    return (row.agreement or 0.0, row.sqnr_db or float("-inf"))


def _cells(line: Versus) -> Sequence[str]:
    closest, gain = line.closest.edgekd_speedup, line.fastest.edgekd_gain
    return (
        line.own.model, line.fastest.title, f"{line.speedup:.2f}x", _answers(line.own), _answers(line.fastest),
        f"{gain.value:.1f} ± {gain.se:.1f}" if gain else "–",
        f"{line.closest.title}, {_answers(line.closest)}", f"{closest.value:.2f}x" if closest else "–",
    )  # fmt: skip


def _answers(row: Row) -> str:
    agreement = "–" if row.agreement is None else f"{100 * row.agreement:.1f} %"
    return agreement if row.sqnr_db is None else f"{agreement}, {row.sqnr_db:.1f} dB"


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
