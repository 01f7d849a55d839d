"""int8 without training of EfficientNet-Lite0 and Lite2 with their real ImageNet weights: does it still agree?

The only real photos that a package carries are foolbox's 20, so each gives itself and ten crops, half of them
mirrored. Two folds: what is measured on ten photos was calibrated on the other ten. The bar is 95 % agreement
of the deployed file with the fp32 network.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from conditions import write
from lite_nets import PACKAGES, SIZES
from packages import unpacked
from PIL import Image

from edgekd.pipeline import compress
from edgekd.recipe_file import parse_recipe

_PHOTOS = "foolbox==3.3.4"
_BAR = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=int, help="0 and 2: Lite0, Lite2")
    parser.add_argument("--crops", type=int, default=10)
    parser.add_argument("--ranges", default="mse")
    options = parser.parse_args()
    unpacked(PACKAGES["code"])
    files = sorted((unpacked(_PHOTOS) / "foolbox" / "data").glob("imagenet_*.jpg"))
    result: dict[str, Any] = {"photos": len(files), "crops_per_photo": options.crops, "bar": _BAR}
    for number in options.models or (0, 2):
        unpacked(PACKAGES[number])
        folds = [_fold(number, files, fold, options.crops, options.ranges) for fold in (0, 1)]
        samples = sum(fold["samples"] for fold in folds)
        agreement = sum(fold["agreement"] * fold["samples"] for fold in folds) / samples
        result[f"lite{number}"] = {
            "agreement": agreement,
            "samples": samples,
            "met": agreement >= _BAR,
            "folds": folds,
        }
    write("lite_ptq", result)


def _fold(number: int, files: list[Path], fold: int, crops: int, ranges: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        data = Path(work) / "photos"
        for position, file in enumerate(files):
            _write(file, data / ("test" if position % 2 == fold else "train"), SIZES[number], crops, position)
        document = {
            "name": f"lite{number}-ptq",
            "teacher": f"torch:{Path(__file__).with_name('lite_nets.py')}:lite{number}",
            "input": {"size": SIZES[number], "channels": 3},
            "data": {"path": str(data), "labels": False},
            "stages": [{"quantize": {"method": "ptq", "ranges": ranges, "calibration_samples": 100}}],
            "export": {"choose": "as-trained"},
            "profile": {"rounds": 3, "runs": 15, "warmup": 4},
        }
        report = compress(parse_recipe(document, where="lite_ptq"), Path(work) / "run")
    assert report is not None
    entry = report.deploy[0]
    stage = next(stage for stage in report.stages if stage.name == "quantize")
    return {
        "samples": report.data.test,
        "agreement": entry.metrics.agreement,
        "parity": entry.parity.agreement if entry.parity else None,
        "integer_coverage": entry.quantization.coverage if entry.quantization else None,
        "speedup_vs_fp32": entry.speedup_vs_student_fp32,
        "size_bytes": entry.size_bytes,
        "seconds_quantize": stage.seconds,
        "notes": stage.notes,
    }


def _write(file: Path, folder: Path, size: int, crops: int, seed: int) -> None:
    """The photo, and crops of 60 to 95 % of its shorter side, every second one mirrored."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, random = Image.open(file).convert("RGB"), np.random.default_rng(seed)
    picture.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{file.stem}-0.png")
    for number in range(1, crops + 1):
        side = int(min(picture.size) * random.uniform(0.6, 0.95))
        left, top = (int(random.integers(0, edge - side + 1)) for edge in picture.size)
        crop = picture.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        if number % 2:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crop.save(folder / f"{file.stem}-{number}.png")


if __name__ == "__main__":
    main()
