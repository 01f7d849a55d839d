"""What decides between quantized candidates: the same answers as in float, or right answers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from edgekd.errors import PreconditionError, fault
from edgekd.quant.fidelity import Fidelity, answers, fidelity
from edgekd.quant.qat import QuantizedModel
from edgekd.recipe_stages import PtqStage
from edgekd.stages.base import StageContext
from edgekd.stages.calibration import Calibration, judging_batches

_CHECKED = 64  # calibration samples that decide where no target is set


class Judge:
    """Against a target validation samples judge; without one a few calibration samples do.

    Attributes:
        batches: the samples, ``(batch, ...)`` each.
        reference: the float network's logits on them, ``(samples, classes)``.
        target: the score to reach; None where the best of all candidates is wanted.
        baseline: the float network's score.
    """

    def __init__(
        self, recipe: PtqStage, model: QuantizedModel, calibration: Calibration, context: StageContext
    ) -> None:
        """
        Args:
            model: in eval mode, its biases as in float.

        Raises:
            PreconditionError: accuracy is to be kept, and there are no labels.
        """
        self.by_labels = recipe.max_accuracy_drop is not None
        self.target = recipe.min_agreement
        if self.target is None and not self.by_labels:
            self.batches = calibration.batches[: -(-_CHECKED // len(calibration.batches[0]))]
            found = calibration
        else:
            found = judging_batches(context, recipe.tuning_samples)
            self.batches = found.batches
        self.labels: Tensor = found.labels[: sum(map(len, self.batches))]
        self.split: str = found.facts["split"]
        if self.by_labels and not (self.labels >= 0).all():
            raise PreconditionError(
                fault(f"{context.name}.max_accuracy_drop", "the validation samples have no labels",
                      fix="use min_agreement")
            )  # fmt: skip
        model.set_phase("off")
        self.reference = answers(model, self.batches)
        self.baseline = 1.0
        if self.by_labels:
            self.baseline = self._accuracy(self.reference)
            self.target = self.baseline - float(recipe.max_accuracy_drop or 0)

    def score(self, model: QuantizedModel) -> tuple[float, Fidelity]:
        """Higher is better; and how close the answers are."""
        logits = answers(model, self.batches)
        close = fidelity(self.reference, logits)
        if self.by_labels:
            return self._accuracy(logits), close
        return (close.agreement if self.target is not None else close.score), close

    def _accuracy(self, logits: Tensor) -> float:
        return float((logits.argmax(1) == self.labels).float().mean())

    def facts(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {
            "split": self.split,
            "samples": len(self.labels),
            "by": "accuracy" if self.by_labels else "agreement",
        }
