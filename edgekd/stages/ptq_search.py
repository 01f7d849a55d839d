"""From a float network to the integer network that answers most alike, in as few steps as the recipe asks."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

from torch import Tensor, nn

from edgekd.errors import PreconditionError, fault
from edgekd.models.fold import fold_batch_norms
from edgekd.quant.observe import observe
from edgekd.quant.ptq import bias_corrections, set_ranges, shift_biases
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.rounding import put_weights, solved_weights
from edgekd.quant.schemes import get_scheme
from edgekd.quant.smooth import smooth
from edgekd.quant.tuning import tune
from edgekd.quant.zero_share import zero_shares
from edgekd.recipe_stages import PtqStage
from edgekd.stages.base import StageContext
from edgekd.stages.calibration import Calibration, calibration_batches
from edgekd.stages.ptq_judge import Judge
from edgekd.stages.ptq_relax import Before, ranked, relax

_PREFERRED = ("mse", "percentile", "min-max", "entropy")  # as they fared on real weights
_SMOOTHED = 4  # batches that SmoothQuant looks at


class PtqSearch:
    """One post-training quantization.

    Attributes:
        facts: for ``metrics.json``: what was calibrated, tried, chosen and left in float.
        notes: sentences for the report.
    """

    def __init__(self, recipe: PtqStage, model: nn.Module, context: StageContext) -> None:
        self.recipe, self.context = recipe, context
        self.float_model = model
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {"method": recipe.method}
        self.corrections: dict[str, Tensor] = {}
        self.corrected = False
        self.unrounded: dict[str, Tensor] = {}  # stored weights from before GPTQ, where its were better
        self.judge: Judge | None = None
        self.met = False

    def run(self) -> QuantizedModel:
        recipe = self.recipe
        calibration = calibration_batches(self.context, recipe.calibration_samples, recipe.calibration)
        self.facts["calibration"] = calibration.facts
        self._smooth(calibration)
        model = prepare_qat(
            self.float_model, self.context.example, get_scheme(self.context.scheme), exclude=recipe.exclude,
            weight_bits=recipe.weight_bits,
        ).eval()  # fmt: skip
        if not model.quantizers:
            raise PreconditionError(fault(self.context.name, "no operation of the model can run in integers"))
        self.observed = observe(
            model, calibration.batches, self._watch("calibrate", len(calibration.batches))
        )
        self._choose(model, calibration)
        self._round(model, calibration)
        model = self._relax(model)
        self._tell(model)
        return model

    def _smooth(self, calibration: Calibration) -> None:
        alpha = self.recipe.smooth
        self.facts["smooth"] = alpha
        if alpha is None:
            return
        fold_batch_norms(self.float_model, self.context.example)
        done = smooth(self.float_model, calibration.batches[:_SMOOTHED], self.context.example, alpha)
        self.facts["smoothed"] = [asdict(each) for each in done]
        changed = sum(each.alpha is not None for each in done)
        self.notes.append(
            f"SmoothQuant (alpha {alpha}) changed {changed} of {len(done)} layer norms" if done else
            "SmoothQuant found nothing to smooth: no layer norm is read by linear layers alone"
        )  # fmt: skip

    def _choose(self, model: QuantizedModel, calibration: Calibration) -> None:
        """Ranges and biases: the first candidate that reaches the target, or the best of all."""
        recipe = self.recipe
        ranges = list(_PREFERRED) if recipe.ranges == "auto" else [recipe.ranges]
        biases = [True, False] if recipe.bias_correction == "auto" else [recipe.bias_correction]
        candidates = list(product(ranges, biases))
        tried: list[dict[str, Any]] = []
        best = 0
        judged = (
            len(candidates) > 1 or recipe.min_agreement is not None or recipe.max_accuracy_drop is not None
        )
        self.judge = Judge(recipe, model, calibration, self.context) if judged else None
        self.corrections = bias_corrections(model, self.observed)

        def evaluate(position: int, judge: Judge) -> float:
            self._apply(model, *candidates[position])
            score, close = judge.score(model)
            tried.append({"ranges": candidates[position][0], "bias_correction": candidates[position][1],
                          "score": score, **asdict(close)})  # fmt: skip
            self._watch("tune", len(candidates))(len(tried), 0)
            return score

        if self.judge is not None:
            tuned = tune(len(candidates), partial(evaluate, judge=self.judge), baseline=self.judge.baseline,
                         target=self.judge.target, max_trials=recipe.max_trials)  # fmt: skip
            best, self.met = tuned.best, tuned.met
        self._apply(model, *candidates[best])
        self.facts |= {"ranges_chosen": candidates[best][0], "bias_correction": candidates[best][1],
                       "trials": tried}  # fmt: skip

    def _round(self, model: QuantizedModel, calibration: Calibration) -> None:
        """Weights by GPTQ, where the recipe wants them or where they answer more alike than the best so far.

        Biases are not corrected then: the means of the inputs are part of what is solved.
        """
        self.facts |= {"rounding": "nearest", "rounding_trial": None}
        if self.recipe.rounding == "nearest":
            return
        if self.recipe.rounding == "auto" and (self.judge is None or (self.judge.target and self.met)):
            return
        ranges, corrected = self.facts["ranges_chosen"], self.corrected
        before = self.judge.score(model)[0] if self.judge else None
        self._apply(model, ranges, False)
        nearest = put_weights(model, solved_weights(model, calibration.batches))
        if self.judge is not None and before is not None:
            score, close = self.judge.score(model)
            self.facts["rounding_trial"] = {"score": score, "nearest": before, **asdict(close)}
            if self.recipe.rounding == "auto" and score <= before:
                put_weights(model, nearest)
                self._apply(model, ranges, corrected)
                return
            self.met = self.judge.target is None or score >= self.judge.target
        self.unrounded = nearest
        self.facts |= {"rounding": "gptq", "bias_correction": False}
        self.notes.append(f"GPTQ rounded the weights of {len(nearest)} layers")

    def _apply(self, model: QuantizedModel, ranges: str, correct: bool) -> None:
        set_ranges(model, self.observed, ranges, share=self.recipe.percentile)
        if correct != self.corrected:
            shift_biases(model, self.corrections, -1 if correct else 1)
            self.corrected = correct

    def _relax(self, model: QuantizedModel) -> QuantizedModel:
        """Where the target does not hold: the most sensitive layers go back to float."""
        self.facts |= {"kept_float": [], "sensitivity": []}
        judge = self.judge
        if judge is None or judge.target is None or self.met:
            return model
        before = Before(self.corrections if self.corrected else {}, self.unrounded)
        found, ranking = relax(model, before, self.recipe, judge, self.context, self.observed.macs)
        self.facts["kept_float"] = [asdict(each) for each in found.kept]
        self.facts["sensitivity"] = [ranked(each) for each in ranking]
        self.met = found.met
        self.notes += [f"{each.name} stays in float: {each.reason}; {each.macs_share:.1%} of the multiply-accumulates"
                       for each in found.kept]  # fmt: skip
        if not found.met:
            what = judge.facts()["by"]
            self.notes.append(
                f"the target is missed: {what} {found.score:.2%} on {judge.split} samples, wanted "
                f"{judge.target:.2%}; with {len(found.kept)} layers in float"
            )
        return found.model

    def _tell(self, model: QuantizedModel) -> None:
        shares = zero_shares(model, self.observed)
        self.facts |= {
            "scheme": model.scheme.name,
            "calibration_samples": self.observed.samples,
            "float_layers": model.float_layers,
            "ranges": len(model.quantizers),
            "judged_on": self.judge.facts() if self.judge else None,
            "target": self.judge.target if self.judge else None,
            "target_met": self.met if self.judge and self.judge.target is not None else None,
            "zero_shares": shares,
        }
        calibration = self.facts["calibration"]
        self.notes.append(
            f"calibrated with {calibration['samples']} of {calibration['of']} {calibration['split']} samples "
            f"({calibration['chosen']}), ranges by {self.facts['ranges_chosen']}"
        )

    def _watch(self, what: str, total: int) -> Any:
        def watch(done: int, _: int) -> None:
            if self.context.progress is not None:
                self.context.progress(what, done, total)

        return watch
