"""The file answers as the trained model, and the gate sees when it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgekd.errors import ParityError
from edgekd.export.parity import parity, parity_of_file, require_parity


def test_the_quantized_file_answers_as_the_quantized_model(case: Any) -> None:
    def model(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return case.model(torch.from_numpy(batch)).numpy()

    report = parity_of_file(case.file.path, model, np.array_split(case.inputs, 3), reference="torch")
    assert report.samples == len(case.inputs) and report.reference == "torch"
    assert report.agreement >= 0.96, report
    assert report.max_abs_diff < 0.1 * np.ptp(case.reference), report
    require_parity(report, 0.96, "model.onnx")


def test_figures_are_those_of_the_arrays() -> None:
    expected = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 3.0]], np.float32)
    written = np.array([[1.0, 0.5], [0.0, 1.0], [1.0, 1.5], [0.0, 3.0]], np.float32)
    report = parity(expected, written)
    assert report.samples == 4 and report.agreement == 0.75
    assert report.max_abs_diff == 1.0 and report.mean_abs_diff == pytest.approx(2.0 / 8)
    with pytest.raises(
        ParityError, match=r"too few of 4 samples .*got 0\.75; allowed: at least 0\.9"
    ) as caught:
        require_parity(report, 0.9, "model.onnx")
    assert "\n" not in str(caught.value)
    require_parity(report, 0.75, "model.onnx")


def test_shapes_that_differ_and_no_samples_are_refused() -> None:
    with pytest.raises(ParityError, match="different shapes"):
        parity(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ParityError):
        parity(np.zeros((0, 2)), np.zeros((0, 2)))


def test_logits_that_are_not_finite_name_the_sample() -> None:
    written = np.zeros((4, 2))
    written[2, 1] = np.nan
    with pytest.raises(ParityError, match="sample 2 are not finite"):
        parity(np.zeros((4, 2)), written)
