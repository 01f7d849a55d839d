from __future__ import annotations

import itertools
import random
import xml.etree.ElementTree as ET
from itertools import combinations
from typing import Any

import pytest

from edgekd.report import Report
from edgekd.report.axis import Axis, log_ticks, nice_ticks, score_range
from edgekd.report.headline import tiles
from edgekd.report.labels import Box, Point, fit, place, text_width
from edgekd.report.latency_chart import latency_chart
from edgekd.report.markup import Markup
from edgekd.report.pictures import latency_picture, size_picture
from edgekd.report.scatter import FONT, HEIGHT, WIDTH, Mark, scatter

SIZES = {"label": 11.5, "tick": 10.5, "axis-title": 10.5}


def _boxes(picture: Markup | None) -> dict[str, Box]:
    """Where each text stands, from the SVG itself."""
    assert picture is not None
    found = {}
    for index, node in enumerate(ET.fromstring(picture).iter("text")):
        text = "".join(node.itertext())
        size = SIZES[(node.get("class") or "").split()[0]]
        width = text_width(text, size)
        left = (
            float(node.get("x", "0"))
            - {"start": 0, "middle": width / 2, "end": width}[node.get("text-anchor", "start")]
        )
        y = float(node.get("y", "0"))
        found[f"{index}: {text}"] = Box(left, y - 0.8 * size, left + width, y + 0.2 * size)
    return found


def _overlapping(boxes: dict[str, Box]) -> list[tuple[str, str]]:
    return [(a, b) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]


def test_no_label_of_the_pictures_overlaps(sample: Report) -> None:
    for picture in [size_picture(sample), *(latency_picture(sample, entry) for entry in sample.deploy)]:
        boxes = _boxes(picture)
        assert _overlapping(boxes) == []
        for name, box in boxes.items():
            assert box.inside(Box(-1, 0, WIDTH + 1, HEIGHT)), name


def test_every_stage_and_file_is_labelled(sample: Report) -> None:
    texts = " ".join(_boxes(size_picture(sample)))
    for name in (
        "teacher, 93.8%",
        "student, 9.9% ↓",
        "distill, 93.0%",
        "prune",
        "quantize",
        "2 deployed files",
    ):
        assert name in texts
    texts = " ".join(_boxes(latency_picture(sample, sample.deploy[1])))
    for name in ("deployed int8 2:4, ~5.90 ms", "student fp32, ~5.20 ms", "teacher fp32, ~48.3 ms"):
        assert name in texts


@pytest.mark.parametrize("seed", range(20))
def test_crowded_points_never_get_overlapping_labels(seed: int) -> None:
    rng = random.Random(seed)
    marks = [
        Mark(rng.uniform(1, 1.3), rng.uniform(0.92, 0.93), f"stage-{i}", "stage", "92.5%", rng.uniform(4, 18))
        for i in range(8)
    ]
    boxes = _boxes(scatter(marks, "t", "y", "x", str, ()))
    assert _overlapping({name: box for name, box in boxes.items() if "stage-" in name}) == []
    assert sum("stage-" in name for name in boxes) == 8


def test_equal_points_are_all_labelled_apart() -> None:
    points = [Point(150, 120, 5, f"equal {i}") for i in range(6)]
    labels = place(points, Box(0, 0, 380, 290), FONT)
    assert [label.point.text for label in labels] == [point.text for point in points]
    assert _overlapping({label.point.text: label.box for label in labels}) == []


def test_a_label_that_fits_nowhere_is_left_out() -> None:
    assert place([Point(10, 10, 4, "much too long for this frame")], Box(0, 0, 40, 40), FONT) == []


def test_rows_of_the_latency_chart_stay_inside(sample: Report) -> None:
    long = sample.model_copy(deep=True)
    long.deploy[0].latency[0].precision = "a very long precision name that nobody would want"
    for report in (sample, long):
        boxes = _boxes(latency_chart(report, report.deploy[0]))
        assert _overlapping(boxes) == []
        assert max(box.right for box in boxes.values()) <= WIDTH


def test_ticks_are_exact_and_stay_on_the_picture() -> None:
    marks = [Mark(x, y, "a", "stage", "", 5.0) for x, y in ((3e5, 0.48), (45e6, 0.555))]
    boxes = _boxes(scatter(marks, "t", "y", "x", lambda value: f"{value / 1e6:g} MEGABYTES", ()))
    texts = [name.partition(": ")[2] for name in boxes]
    ticks = sorted(float(text[:-1]) for text in texts if text.endswith("%"))
    steps = {round(high - low, 6) for low, high in itertools.pairwise(ticks)}
    assert len(ticks) >= 4 and steps == {2.5}, "evenly spaced, none rounded"
    assert any(text.endswith("MEGABYTES") for text in texts)
    assert max(box.right for name, box in boxes.items() if name.endswith("MEGABYTES")) <= WIDTH + 0.01


def test_a_larger_file_is_not_called_smaller(document: dict[str, Any]) -> None:
    entry = document["deploy"][0]
    entry["size_bytes"] = 20 * entry["baseline"]["teacher"]["size_bytes"]
    report = Report.model_validate(document)
    (size,) = [tile for tile in tiles(report, report.deploy[0]) if tile.name == "Size"]
    assert size.details[0] == "20.0× the size of the teacher in fp32"


def test_axes() -> None:
    axis = Axis(1, 100, 0, 200, log=True)
    assert (axis(1), axis(10), axis(100)) == pytest.approx((0, 100, 200))
    assert nice_ticks(0.9, 0.94, 4) == [0.9, 0.91, 0.92, 0.93, 0.94]
    assert nice_ticks(3, 3) == [3]
    assert log_ticks(90, 5500) == [100, 200, 500, 1000, 2000, 5000]
    assert log_ticks(0.1, 20_000_000) == [10.0**power for power in range(-1, 8)]


def test_untrained_student_does_not_squeeze_the_axis() -> None:
    low, high = score_range([0.0987, 0.93, 0.927, 0.926, 0.938])
    assert 0.91 < low < 0.926
    assert 0.938 < high < 0.95
    low, _ = score_range([0.5, 0.6, 0.7])
    assert low < 0.5


def test_fit_shortens_in_the_middle() -> None:
    assert fit("blocks.0.conv", 10, 500) == "blocks.0.conv"
    short = fit("blocks.0.convolution.weight", 10, 80)
    assert text_width(short, 10) <= 80
    assert short.startswith("blo")
    assert short.endswith("ght")
