from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from edgekd.data.array_augment import augment_arrays
from edgekd.data.batches import normalise_planes
from edgekd.data.hashing import fold, fold_array
from edgekd.data.image_augment import ImageAugment, kept_generators
from edgekd.errors import RecipeError
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.preprocess import Preprocess
from edgekd.recipe_stages import AugmentRecipe

GRAY = Preprocess(height=8, width=8, channels=1, mean=(0.3,), std=(0.35,))
RGB = Preprocess(height=8, width=8)
NOTHING = AugmentRecipe(hflip=0.0)


def _states(count: int) -> np.ndarray:
    return fold_array(fold(0, 0), np.arange(count))


@pytest.fixture(params=["gray", "gray to RGB", "RGB"])
def case(
    request: pytest.FixtureRequest, digits: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, Preprocess]:
    pixels = digits[0][:200]
    if request.param == "RGB":
        pixels = np.stack([pixels, pixels[:, ::-1], 255 - pixels], axis=-1)
    return pixels, GRAY if request.param == "gray" else RGB


def test_no_augmentation_is_the_deployed_preprocessing_to_the_bit(
    case: tuple[np.ndarray, Preprocess],
) -> None:
    pixels, preprocess = case
    inputs = augment_arrays(pixels, _states(200), preprocess, NOTHING)
    assert inputs.flags.c_contiguous
    for image, values in zip(pixels, inputs, strict=True):
        assert (values == preprocess(Image.fromarray(image))).all()


def test_every_shift_and_flip_occurs_and_nothing_else(case: tuple[np.ndarray, Preprocess]) -> None:
    """Against the slow way: pad with zeros, cut out, mirror."""
    pixels, preprocess = case
    inputs = augment_arrays(pixels, _states(200), preprocess, AugmentRecipe(crop_padding=1, hflip=0.5))
    seen = set()
    for image, values in zip(pixels, inputs, strict=True):
        border = ((1, 1), (1, 1)) + ((0, 0),) * (image.ndim - 2)
        padded = np.pad(image, border)
        candidates = {}
        for top in range(3):
            for left in range(3):
                cut = padded[top : top + 8, left : left + 8]
                for flip in (False, True):
                    shown = cut[:, ::-1] if flip else cut
                    candidates[top, left, flip] = preprocess(Image.fromarray(np.ascontiguousarray(shown)))
        matches = [key for key, expected in candidates.items() if (values == expected).all()]
        assert matches
        seen.update(matches)
    assert len(seen) == 18


def test_flip_probability(digits: tuple[np.ndarray, np.ndarray]) -> None:
    pixels = digits[0][:1000]
    inputs = augment_arrays(pixels, _states(1000), GRAY, AugmentRecipe(hflip=0.25))
    plain = normalise_planes(pixels, GRAY)
    flipped = (inputs != plain).any(axis=(1, 2, 3)).mean()
    assert 0.2 < flipped < 0.3
    assert (augment_arrays(pixels, _states(1000), GRAY, AugmentRecipe(hflip=1.0)) == plain[..., ::-1]).all()


def test_erasing_writes_rectangles_of_the_mean(digits: tuple[np.ndarray, np.ndarray]) -> None:
    pixels = np.full((2000, 8, 8), 255, np.uint8)
    inputs = augment_arrays(pixels, _states(2000), RGB, AugmentRecipe(hflip=0.0, erasing=0.25))
    erased = (inputs == 0).all(axis=1)
    hit = erased.any(axis=(1, 2))
    assert 0.2 < hit.mean() < 0.3
    ratios = []
    for mask in erased[hit]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        ratios.append(len(rows) / len(columns))
        assert mask.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert np.mean(np.array(ratios) > 1.9) > 0.1  # aspect log-uniform in 0.3 to 3.3
    assert np.mean(np.array(ratios) < 0.52) > 0.1
    assert 0.1 < erased[hit].mean() < 0.25  # area uniform in 0.02 to 0.33
    assert erased.any(axis=0).all()  # every place can be hit
    assert (inputs[~hit] == inputs[~hit][0]).all()


def test_the_source_is_not_written_to(digits: tuple[np.ndarray, np.ndarray]) -> None:
    pixels = digits[0][:50].copy()
    pixels.flags.writeable = False
    augment_arrays(pixels, _states(50), GRAY, AugmentRecipe(hflip=1.0, erasing=1.0))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "crop_pct"), [(224, 0.875), (224, 1.0), (160, 0.95), (300, 0.9)])
def test_measuring_equals_timm_s_evaluation_on_photos(size: int, crop_pct: float, interpolation: str) -> None:
    ensure_torchvision_ops()
    from timm.data import create_transform

    preprocess = Preprocess(height=size, width=size, crop_pct=crop_pct, interpolation=interpolation)
    reference = create_transform(
        input_size=(3, size, size), is_training=False, interpolation=interpolation,
        mean=preprocess.mean, std=preprocess.std, crop_pct=crop_pct,
    )  # fmt: skip
    for pixels in load_sample_images().images:  # 640x427
        for image in (
            Image.fromarray(pixels),
            Image.fromarray(pixels).rotate(90, expand=True).crop((3, 0, 420, 511)),
        ):
            assert np.abs(preprocess(image) - reference(image).numpy()).max() < 1e-6


def _photo() -> Image.Image:
    return Image.fromarray(load_sample_images().images[0])


def test_without_random_crop_the_geometry_is_the_deployed_one() -> None:
    preprocess = Preprocess(height=64, width=64, crop_pct=0.9)
    with kept_generators():
        result = ImageAugment(preprocess, NOTHING)(_photo(), 5)
    assert np.abs(result.numpy() - preprocess(_photo())).max() < 1e-6


def test_crop_padding_shifts_the_deployed_image() -> None:
    preprocess = Preprocess(height=64, width=64)
    plain = torch.from_numpy(preprocess(_photo()))
    augment = ImageAugment(preprocess, AugmentRecipe(hflip=0.0, crop_padding=4))
    offsets = set()
    with kept_generators():
        for state in range(12):
            result = augment(_photo(), state)
            inner = result[:, 8:-8, 8:-8]
            found = [
                (y, x) for y in range(-4, 5) for x in range(-4, 5)
                if torch.allclose(inner, plain[:, 8 + y : 56 + y, 8 + x : 56 + x], atol=1e-6)
            ]  # fmt: skip
            assert len(found) == 1
            offsets.update(found)
    assert len(offsets) > 6


@pytest.mark.parametrize(
    "settings",
    [
        {"random_resized_crop": (0.2, 0.5)},
        {"auto_augment": "rand-m9"},
        {"color_jitter": 0.5},
        {"erasing": 1.0},
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_setting_reaches_timm(settings: dict[str, object], channels: int) -> None:
    preprocess = Preprocess(
        height=48, width=48, channels=channels, mean=(0.5,) * channels, std=(0.2,) * channels
    )
    plain = torch.from_numpy(preprocess(_photo()))
    augment = ImageAugment(preprocess, AugmentRecipe.model_validate({"hflip": 0.0, **settings}))
    with kept_generators():
        first, again, other = (augment(_photo(), state) for state in (1, 1, 2))
    assert first.shape == preprocess.input_shape
    assert not torch.allclose(first, plain, atol=1e-3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_crop_s_share_is_the_recipe_s() -> None:
    preprocess = Preprocess(height=48, width=48)

    def shown(share: tuple[float, float]) -> int:
        augment = ImageAugment(preprocess, AugmentRecipe(hflip=0.0, random_resized_crop=share))
        with kept_generators():
            return len({augment(_photo(), state).numpy().tobytes() for state in range(6)})

    assert shown((0.3, 1.0)) == 6
    assert shown((0.995, 1.0)) == 1  # no such crop fits a 3:2 photo, and timm takes the centre


@pytest.mark.parametrize(
    "policy", ["rand-m10-n4-inc1", "rand-m9-mstd0.5", "original", "augmix-m5-w4-d2", "3a"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_policy_runs_at_full_strength(policy: str, channels: int) -> None:
    preprocess = Preprocess(
        height=16, width=16, channels=channels, mean=(0.5,) * channels, std=(0.2,) * channels
    )
    augment = ImageAugment(preprocess, AugmentRecipe(auto_augment=policy))
    image = _photo().resize((20, 18))
    with kept_generators():
        shown = [augment(image, state) for state in range(120)]
    assert all(values.shape == preprocess.input_shape and values.isfinite().all() for values in shown)
    assert len({values.numpy().tobytes() for values in shown}) > 20


def test_a_policy_that_timm_does_not_know(refused: Callable[..., object]) -> None:
    for text in ("banana", "rand-x9"):
        with refused(RecipeError, "augment.auto_augment", repr(text)):
            ImageAugment(RGB, AugmentRecipe(auto_augment=text)).build()


def test_opening_and_measuring_need_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from edgekd.data import open_data, eval_batches;"
        "from edgekd.recipe import DataRecipe; from edgekd.preprocess import Preprocess;"
        "data = open_data(DataRecipe(path='builtin:digits'), base=Path());"
        "pre = Preprocess(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,));"
        "next(eval_batches(data.test, pre, batch_size=4)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
