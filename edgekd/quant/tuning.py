"""Try configurations in order until one is good enough: neural-compressor's tuning loop over our candidates.

Of neural-compressor 3.10's tuning only the framework-free part is used (``neural_compressor.common``: search
space, stopping criterion, record of trials). Its ``torch.quantization.autotune`` quantizes with
neural-compressor's own algorithms, whose results have another placement than our files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from edgekd.quant.compressor import tuning_framework

_SMALLEST = 1e-9
_NEVER = -1.0


@dataclass(frozen=True)
class Trial:
    """A candidate's position and its score (higher is better)."""

    candidate: int
    score: float


@dataclass(frozen=True)
class Tuned:
    """``best`` is the position of the candidate with the highest score; ``met`` whether the target holds."""

    best: int
    met: bool
    trials: tuple[Trial, ...]


def tune(
    candidates: int,
    evaluate: Callable[[int], float],
    *,
    baseline: float,
    target: float | None,
    max_trials: int,
) -> Tuned:
    """Evaluate candidates ``0, 1, ...`` and stop at the first whose score reaches ``target``.

    Args:
        candidates: how many there are, the preferred first.
        baseline: the float network's score.
        target: None tries all.
        max_trials: at most so many are tried.
    """
    base_config, tuning = tuning_framework()

    class Candidate(base_config):  # type: ignore[misc, valid-type]
        """One position of the search space, as neural-compressor wants a configuration."""

        name = "edgekd"
        params_list: ClassVar[list[str]] = []

        def __init__(self, position: int) -> None:
            super().__init__(white_list=None)
            self.position = position

        def expand(self) -> list[Candidate]:
            return [self]

        def to_dict(self, *args: Any, **kwargs: Any) -> dict[str, int]:
            return {"position": self.position}

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Candidate) and other.position == self.position

        __hash__ = None  # type: ignore[assignment]

        @classmethod
        def register_supported_configs(cls) -> list[Any]:
            return []

        @classmethod
        def get_config_set_for_tuning(cls) -> list[Any]:
            return []

    # The framework's loss is relative to the baseline, and it divides by it.
    whole = max(baseline, _SMALLEST)
    loss = _NEVER if target is None else (whole - target) / whole
    loader, _, monitor = tuning.init_tuning(
        tuning.TuningConfig(
            config_set=[Candidate(position) for position in range(candidates)],
            tolerable_loss=loss,
            max_trials=max_trials,
        )
    )
    monitor.set_baseline(whole)
    trials = []
    for number, candidate in enumerate(loader, 1):
        trials.append(Trial(candidate.position, evaluate(candidate.position)))
        monitor.add_trial_result(number, trials[-1].score, candidate)
        if monitor.need_stop():
            break
    best = monitor.get_best_trial_record()
    met = target is None or best.trial_result >= target
    return Tuned(best.quant_config.position, met, tuple(trials))
