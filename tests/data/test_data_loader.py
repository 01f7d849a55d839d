from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from edgekd.data import Dataset, Split, eval_batches, eval_loader, open_data, train_loader
from edgekd.data.source import SampleError
from edgekd.preprocess import Preprocess
from edgekd.recipe import DataRecipe
from edgekd.recipe_stages import AugmentRecipe

SMALL = Preprocess(height=8, width=8, channels=1, mean=(0.3,), std=(0.35,))
LARGE = Preprocess(height=32, width=32)
ARRAYS = AugmentRecipe(crop_padding=1, hflip=0.5, erasing=0.5)
IMAGES = AugmentRecipe(
    random_resized_crop=(0.35, 1.0), auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.3, erasing=0.5
)
CASES = pytest.mark.parametrize(
    ("preprocess", "augment"), [(SMALL, ARRAYS), (LARGE, IMAGES)], ids=["array", "pil"]
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return open_data(DataRecipe(path="builtin:digits", max_train=80, max_test=30), base=Path())


def _loader(split: Split, preprocess: Preprocess, augment: AugmentRecipe, **settings: object) -> DataLoader:
    usual = {"batch_size": 16, "seed": 1, "slot": 0, "order_seed": 0, "workers": 0}
    return train_loader(split, preprocess, augment, **{**usual, **settings})  # type: ignore[arg-type]


def _by_index(loader: DataLoader) -> dict[int, torch.Tensor]:
    return {
        int(index): pixels
        for batch in loader
        for index, pixels in zip(batch["indices"], batch["inputs"], strict=True)
    }


def _same(one: dict[int, torch.Tensor], other: dict[int, torch.Tensor]) -> bool:
    return all(torch.equal(one[index], other[index]) for index in one.keys() & other.keys())


@CASES
def test_batches_have_the_promised_form(
    data: Dataset, preprocess: Preprocess, augment: AugmentRecipe
) -> None:
    batch = next(iter(_loader(data.train, preprocess, augment)))
    assert set(batch) == {"inputs", "labels", "indices"}
    assert batch["inputs"].dtype == torch.float32
    assert batch["inputs"].shape == (16, *preprocess.input_shape)
    assert batch["inputs"].is_contiguous()
    assert batch["labels"].dtype == batch["indices"].dtype == torch.int64
    assert (batch["labels"].numpy() == data.train.source.labels[batch["indices"]]).all()
    assert set(batch["indices"].tolist()) <= set(data.train.indices.tolist())


@CASES
@pytest.mark.parametrize("change", [{"batch_size": 5}, {"order_seed": 9}, {"workers": 2}, {"batch_size": 1}])
def test_replay_is_exact(
    data: Dataset, preprocess: Preprocess, augment: AugmentRecipe, change: dict[str, int]
) -> None:
    """Whatever the batch, the order and the process: the pixels follow from (seed, slot, sample)."""
    first = _by_index(_loader(data.train, preprocess, augment, drop_last=False))
    again = _by_index(_loader(data.train, preprocess, augment, drop_last=False, **change))
    assert first.keys() == again.keys() == set(data.train.indices.tolist())
    assert _same(first, again)


@CASES
@pytest.mark.parametrize("change", [{"seed": 2}, {"slot": 1}])
def test_another_seed_or_slot_is_another_augmentation(
    data: Dataset, preprocess: Preprocess, augment: AugmentRecipe, change: dict[str, int]
) -> None:
    first = _by_index(_loader(data.train, preprocess, augment))
    other = _by_index(_loader(data.train, preprocess, augment, **change))
    assert sum(not torch.equal(first[index], other[index]) for index in first) > 0.8 * len(first)


def test_the_order_follows_from_its_seed(data: Dataset) -> None:
    def order(seed: int) -> list[int]:
        return torch.cat([b["indices"] for b in _loader(data.train, SMALL, ARRAYS, order_seed=seed)]).tolist()

    assert order(3) == order(3)
    assert order(3) != order(4)
    assert order(3) != sorted(order(3))


@CASES
def test_training_s_own_randomness_is_not_touched(
    data: Dataset, preprocess: Preprocess, augment: AugmentRecipe
) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    def seed() -> None:
        random.seed(0), np.random.seed(0), torch.manual_seed(0)

    seed()
    untouched = draw()
    seed()
    for _ in _loader(data.train, preprocess, augment.model_copy(update={"mixup": 0.4})):
        pass
    assert draw() == untouched


def test_the_last_batch_is_dropped_unless_it_is_the_only_one(data: Dataset) -> None:
    assert len(data.train) == 72
    sizes = [len(batch["labels"]) for batch in _loader(data.train, SMALL, ARRAYS, batch_size=50)]
    assert sizes == [50]
    sizes = [
        len(batch["labels"]) for batch in _loader(data.train, SMALL, ARRAYS, batch_size=50, drop_last=False)
    ]
    assert sizes == [50, 22]
    assert [len(batch["labels"]) for batch in _loader(data.train, SMALL, ARRAYS, batch_size=999)] == [72]


@pytest.mark.parametrize("preprocess", [SMALL, LARGE])
@pytest.mark.parametrize("workers", [0, 2])
def test_measuring_is_in_order_and_as_deployed(data: Dataset, preprocess: Preprocess, workers: int) -> None:
    batches = list(eval_loader(data.test, preprocess, batch_size=8, workers=workers))
    assert torch.cat([batch["indices"] for batch in batches]).tolist() == data.test.indices.tolist()
    inputs = torch.cat([batch["inputs"] for batch in batches]).numpy()
    for position, index in enumerate(data.test.indices.tolist()):
        assert (inputs[position] == preprocess(data.test.source.image(index))).all()
    without_torch = np.concatenate([batch[0] for batch in eval_batches(data.test, preprocess, batch_size=7)])
    assert (without_torch == inputs).all()


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_replays_and_gives_targets(data: Dataset, settings: dict[str, float]) -> None:
    augment = AugmentRecipe(**settings)  # type: ignore[arg-type]
    first = list(_loader(data.train, SMALL, augment, order_seed=1))
    for again in (
        _loader(data.train, SMALL, augment, order_seed=2),  # the order follows from (seed, slot) here
        _loader(data.train, SMALL, augment, order_seed=1, workers=2),
    ):
        for one, other in zip(first, again, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
    other_slot = next(iter(_loader(data.train, SMALL, augment, slot=1)))
    assert other_slot["indices"].tolist() != first[0]["indices"].tolist()
    targets = torch.cat([batch["targets"] for batch in first])
    labels = torch.cat([batch["labels"] for batch in first])
    assert targets.shape == (64, 10)
    assert torch.allclose(targets.sum(dim=1), torch.ones(64))
    assert (targets.gather(1, labels[:, None]) > 0).float().mean() > 0.8
    assert ((targets > 0).sum(dim=1) == 2).any()


def test_mixup_is_the_weighted_sum_it_says(data: Dataset) -> None:
    plain = _by_index(_loader(data.train, SMALL, AugmentRecipe(), drop_last=False))
    batch = next(iter(_loader(data.train, SMALL, AugmentRecipe(mixup=0.4))))
    labels, targets = batch["labels"], batch["targets"]
    pairs = [i for i in range(16) if labels[i] != labels[15 - i]]
    share = targets[pairs[0], labels[pairs[0]]]
    for i in pairs:
        one, other = plain[int(batch["indices"][i])], plain[int(batch["indices"][15 - i])]
        assert torch.allclose(batch["inputs"][i], share * one + (1 - share) * other, atol=1e-5)


def test_mixing_an_odd_batch_leaves_its_last_sample_alone(data: Dataset) -> None:
    plain = _by_index(_loader(data.train, SMALL, AugmentRecipe(), drop_last=False))
    for batch in _loader(data.train, SMALL, AugmentRecipe(mixup=0.4), batch_size=7):
        assert torch.equal(batch["inputs"][6], plain[int(batch["indices"][6])])
        assert batch["targets"][6].tolist() == torch.eye(10)[batch["labels"][6]].tolist()


def test_mixing_without_labels_has_no_targets() -> None:
    data = open_data(DataRecipe(path="builtin:digits", labels=False, max_train=40), base=Path())
    plain = _by_index(_loader(data.train, SMALL, AugmentRecipe(), drop_last=False))
    batch = next(iter(_loader(data.train, SMALL, AugmentRecipe(mixup=0.4), batch_size=12)))
    assert "targets" not in batch
    assert (batch["labels"] == -1).all()
    assert not torch.equal(batch["inputs"][0], plain[int(batch["indices"][0])])


@CASES
def test_two_processes_share_the_batches(
    data: Dataset, preprocess: Preprocess, augment: AugmentRecipe
) -> None:
    """What ``accelerate`` gives each of two processes: together the batches of one, pixel for pixel."""
    from accelerate.data_loader import prepare_data_loader
    from accelerate.state import PartialState

    PartialState(cpu=True)
    mixed = augment.model_copy(update={"mixup": 0.4})
    shares = [
        list(
            prepare_data_loader(
                _loader(data.train, preprocess, mixed),
                num_processes=2,
                process_index=rank,
                put_on_device=False,
            )
        )
        for rank in range(2)
    ]
    whole = list(_loader(data.train, preprocess, mixed))
    assert len(whole) == 4
    for position, batch in enumerate(whole):
        share = shares[position % 2][position // 2]
        assert all(torch.equal(batch[key], share[key]) for key in batch)


@CASES
def test_loaders_can_be_sent_to_a_spawned_process(
    data: Dataset, preprocess: Preprocess, augment: AugmentRecipe
) -> None:
    loader = _loader(data.train, preprocess, augment, drop_last=False)
    before = _by_index(loader)
    dataset = pickle.loads(pickle.dumps(loader.dataset))
    batch = dataset.__getitems__([0, 1])
    assert batch["indices"].tolist() == data.train.indices[:2].tolist()
    for index, pixels in zip(batch["indices"], batch["inputs"], strict=True):
        assert torch.equal(pixels, before[int(index)])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_lost_while_training_is_named_on_one_line(
    flat_folder: Path, refused: Callable[..., object], workers: int
) -> None:
    data = open_data(DataRecipe(path=str(flat_folder)), base=Path())
    lost = flat_folder / data.train.sample_id(7)
    lost.unlink()
    with refused(SampleError, str(lost), "no such image"):
        list(_loader(data.train, LARGE, AugmentRecipe(), workers=workers))


def test_gray_arrays_of_another_size_become_the_model_s_colour_images(data: Dataset) -> None:
    preprocess = Preprocess(height=224, width=224, interpolation="bilinear")
    batch = next(iter(_loader(data.train, preprocess, AugmentRecipe(), batch_size=4)))
    assert batch["inputs"].shape == (4, 3, 224, 224)
    back = batch["inputs"] * torch.tensor(preprocess.std).view(3, 1, 1) + torch.tensor(preprocess.mean).view(
        3, 1, 1
    )
    assert torch.allclose(back[:, 0], back[:, 1], atol=1e-5)
    assert 0.8 < back.max() <= 1.0001
