"""From a float network to the integer network that answers most alike, in as few steps as the recipe asks."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import PreconditionError, fault
from edgekd.models.fold import fold_batch_norms
from edgekd.quant.estimators import ESTIMATORS
from edgekd.quant.fidelity import Fidelity, answers, fidelity
from edgekd.quant.kept_float import keep_in_float
from edgekd.quant.observe import observe
from edgekd.quant.partial import leave_in_float
from edgekd.quant.ptq import bias_corrections, set_ranges, shift_biases
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import get_scheme
from edgekd.quant.sensitivity import LayerSensitivity, layer_sensitivity
from edgekd.quant.smooth import smooth
from edgekd.quant.tuning import tune
from edgekd.quant.zero_share import zero_shares
from edgekd.recipe_stages import PtqStage
from edgekd.stages.base import StageContext
from edgekd.stages.calibration import Calibration, calibration_batches, judging_batches

_CHECKED = 64  # calibration samples that decide between configurations where no target is set
_SMOOTHED = 4  # batches that SmoothQuant looks at
_RANKED = 32  # samples for each layer's sensitivity: divergences, unlike top-1, need few


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
        self._prepare_judge(model, calibration)
        model = self._choose(model)
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

    # --- how candidates are judged

    def _prepare_judge(self, model: QuantizedModel, calibration: Calibration) -> None:
        """Against a target validation samples judge; without one a few calibration samples do."""
        recipe = self.recipe
        self.target: float | None = None
        self.by_labels = recipe.max_accuracy_drop is not None
        if recipe.min_agreement is None and not self.by_labels:
            judge = calibration.batches[: -(-_CHECKED // len(calibration.batches[0]))]
            self.judge, self.labels = judge, calibration.labels[: sum(map(len, judge))]
            self.judged_on = calibration.facts["split"]
        else:
            found = judging_batches(self.context, recipe.tuning_samples)
            self.judge, self.labels, self.judged_on = found.batches, found.labels, found.facts["split"]
        self._reference: Tensor | None = None
        self._float = model
        self.baseline = 1.0
        if self.by_labels:
            if not (self.labels >= 0).all():
                raise PreconditionError(
                    fault(f"{self.context.name}.max_accuracy_drop", "the validation samples have no labels",
                          fix="use min_agreement")
                )  # fmt: skip
            self.baseline = float((self.reference.argmax(1) == self.labels).float().mean())
            self.target = self.baseline - float(recipe.max_accuracy_drop or 0)
        elif recipe.min_agreement is not None:
            self.target = recipe.min_agreement

    @property
    def reference(self) -> Tensor:
        """The float network's logits on the judging samples; asked for before a bias is corrected."""
        if self._reference is None:
            self._float.set_phase("off")
            self._reference = answers(self._float, self.judge)
        return self._reference

    def _score(self, model: QuantizedModel) -> tuple[float, Fidelity]:
        logits = answers(model, self.judge)
        close = fidelity(self.reference, logits)
        if self.by_labels:
            return float((logits.argmax(1) == self.labels).float().mean()), close
        return (close.agreement if self.target is not None else close.score), close

    # --- the steps

    def _choose(self, model: QuantizedModel) -> QuantizedModel:
        """Ranges and biases: the first candidate that reaches the target, or the best of all."""
        recipe = self.recipe
        ranges = ["mse", "percentile", "min-max", "entropy"] if recipe.ranges == "auto" else [recipe.ranges]
        assert set(ranges) <= set(ESTIMATORS)
        biases = [True, False] if recipe.bias_correction == "auto" else [recipe.bias_correction]
        candidates = list(product(ranges, biases))
        if len(candidates) > 1 or self.target is not None:
            _ = self.reference
        self.corrections = bias_corrections(model, self.observed)
        tried: list[dict[str, Any]] = []

        def evaluate(position: int) -> float:
            self._apply(model, *candidates[position])
            score, close = self._score(model)
            tried.append({"ranges": candidates[position][0], "bias_correction": candidates[position][1],
                          "score": score, **asdict(close)})  # fmt: skip
            self._watch("tune", len(candidates))(len(tried), 0)
            return score

        best = 0
        self.met: bool | None = None
        if len(candidates) > 1 or self.target is not None:
            tuned = tune(len(candidates), evaluate, baseline=self.baseline, target=self.target,
                         max_trials=recipe.max_trials)  # fmt: skip
            best, self.met = tuned.best, tuned.met
        self._apply(model, *candidates[best])
        self.facts |= {"ranges_chosen": candidates[best][0], "bias_correction": candidates[best][1],
                       "trials": tried}  # fmt: skip
        return model

    def _apply(self, model: QuantizedModel, ranges: str, correct: bool) -> None:
        set_ranges(model, self.observed, ranges, share=self.recipe.percentile)
        if correct != self.corrected:
            shift_biases(model, self.corrections, -1 if correct else 1)
            self.corrected = correct

    def _relax(self, model: QuantizedModel) -> QuantizedModel:
        """Where the target does not hold: the most sensitive layers go back to float."""
        self.facts |= {"kept_float": [], "sensitivity": []}
        if self.target is None or self.met:
            return model
        recipe = self.recipe
        progress = self.context.progress
        few = [batch[:_RANKED] for batch in self.judge[:1]]  # batches of texts differ in length
        ranking = layer_sensitivity(
            model, few, seconds=recipe.sensitivity_seconds,
            progress=None if progress is None else lambda done, total: progress("sensitivity", done, total),
        )  # fmt: skip

        def rebuild(layers: dict[str, str]) -> QuantizedModel:
            other = leave_in_float(model, layers, self.context.example, unrounded=True)
            if self.corrected:
                shift_biases(other, {n: self.corrections[n] for n in layers if n in self.corrections}, 1)
            return other

        found = keep_in_float(
            model, ranking, rebuild=rebuild, evaluate=lambda candidate: self._score(candidate)[0],
            target=self.target, most=recipe.max_float_layers, macs=self.observed.macs,
        )  # fmt: skip
        self.facts["kept_float"] = [asdict(each) for each in found.kept]
        self.facts["sensitivity"] = [_entry(each) for each in ranking]
        self.met = found.met
        self.notes += [f"{each.name} stays in float: {each.reason}; {each.macs_share:.1%} of the multiply-accumulates"
                       for each in found.kept]  # fmt: skip
        if not found.met:
            what = "accuracy" if self.by_labels else "agreement"
            self.notes.append(
                f"the target is missed: {what} {found.score:.2%} on {self.judged_on} samples, wanted "
                f"{self.target:.2%}; with {len(found.kept)} layers in float"
            )
        return found.model

    def _tell(self, model: QuantizedModel) -> None:
        shares = zero_shares(model, self.observed)
        self.facts |= {
            "scheme": model.scheme.name,
            "calibration_samples": self.observed.samples,
            "float_layers": model.float_layers,
            "ranges": len(model.quantizers),
            "judged_on": {"split": self.judged_on, "samples": len(self.labels)},
            "target": self.target,
            "target_met": self.met if self.target is not None else None,
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


def _entry(each: LayerSensitivity) -> dict[str, Any]:
    return {"name": each.name, "layers": list(each.layers), "kl": each.kl, "mse": each.mse,
            "agreement": each.agreement}  # fmt: skip
