"""How much of an inference one thread runs alone, whatever their number: small operators and the runtime around them.

Without it a net of a hundred thousand instructions got faster with every core of a board.
"""

from __future__ import annotations

from collections.abc import Sequence

# Instructions of a run around its operators, with Python's binding: counted on a Cortex-A72, 50,000 to 57,000.
_AROUND = 50_000
# ONNX Runtime asks for a second thread from 65,536 multiply-accumulates on, counted as 1.6 to 3 instructions for four.
_ALONE = 40_000


def own_instructions(whole: int, operators: Sequence[int]) -> list[float]:
    """Of each operator, without what the profiler spent on it, which is the same for all.

    Args:
        whole: instructions of an inference without the profiler.
        operators: each one's, with it.
    """
    profiler = max(0.0, (sum(operators) - whole + min(_AROUND, whole)) / max(1, len(operators)))
    return [max(0.0, each - profiler) for each in operators]


def is_alone(own: float) -> bool:
    """An operator of so many instructions is run by one thread."""
    return own < _ALONE


def alone_share(whole: int, operators: Sequence[int]) -> float:
    """Of an inference's instructions those that one thread runs, 0 to 1; see :func:`own_instructions`."""
    alone = sum(own for own in own_instructions(whole, operators) if is_alone(own))
    return min(1.0, (min(_AROUND, whole) + alone) / whole)
