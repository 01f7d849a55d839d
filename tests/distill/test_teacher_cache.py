from __future__ import annotations

import errno
import os
import time

import numpy as np
import pytest
import torch

from edgekd.distill import slot_files
from edgekd.distill.cache_key import CacheKey
from edgekd.distill.teacher_cache import TeacherCache, bytes_needed
from edgekd.errors import ModelError, OutputError, PreconditionError
from edgekd.preprocess import Preprocess
from edgekd.recipe_stages import AugmentRecipe

SAMPLES = np.array([2, 3, 5, 7, 11, 13, 17, 19])  # source indices: neither dense nor from 0
torch.manual_seed(0)
LOGITS = 3 * torch.randn(8, 10)


def preprocess(height: int) -> Preprocess:
    return Preprocess(height=height, width=28, channels=1, mean=(0.5,), std=(0.5,))


def key(**changes) -> CacheKey:
    facts = {
        "teacher": "a" * 64, "data": "d" * 64, "samples": SAMPLES, "augment": AugmentRecipe(crop_padding=2),
        "preprocess": preprocess(28), "seed": 1, "top_k": 10, "slots": 2, "batch_size": 4,
    }  # fmt: skip
    return CacheKey.of(**{**facts, **changes})


def cache_at(path, *, top_k=10, slots=2, classes=10, samples=SAMPLES, **changes) -> TeacherCache:
    return TeacherCache(path, key(**changes), samples=samples, classes=classes, top_k=top_k, slots=slots)


def filled(path, slot=0, **settings) -> TeacherCache:
    cache = cache_at(path, **settings)
    cache.begin(slot)
    cache.store(torch.from_numpy(SAMPLES), slot, LOGITS)
    cache.flush(slot)
    cache.finish(slot)
    return cache


def test_replay_is_exact_to_within_float16_in_any_order_and_after_reopening(tmp_path):
    filled(tmp_path / "cache")
    again = cache_at(tmp_path / "cache")
    order = torch.tensor([5, 0, 7, 2])
    replayed = again.lookup(torch.from_numpy(SAMPLES)[order], 0)
    torch.testing.assert_close(replayed, LOGITS[order].log_softmax(1), rtol=2e-3, atol=2e-3)


def test_the_order_of_the_samples_does_not_matter(tmp_path):
    filled(tmp_path)
    again = cache_at(tmp_path, samples=SAMPLES[::-1].copy())
    torch.testing.assert_close(again.lookup([13], 0)[0], LOGITS[5].log_softmax(0), rtol=2e-3, atol=2e-3)


def test_slots_are_separate(tmp_path):
    cache = filled(tmp_path, 0)
    assert cache.complete(0) and not cache.complete(1)
    cache.begin(1)
    cache.store(SAMPLES[:1], 1, -LOGITS[:1])
    assert cache.lookup(SAMPLES[:1], 1).argmax() == LOGITS[0].argmin()
    assert cache.lookup(SAMPLES[:1], 0).argmax() == LOGITS[0].argmax()
    with pytest.raises(ValueError, match="slot 2 of a teacher cache with 2"):
        cache.complete(2)


@pytest.mark.parametrize(
    ("component", "changes"),
    [
        ("teacher", {"teacher": "b" * 64}),
        ("data", {"data": "e" * 64}),
        ("samples", {"samples": SAMPLES[:-1]}),
        ("augmentation.hflip", {"augment": AugmentRecipe(crop_padding=2, hflip=0.0)}),
        ("preprocessing.height", {"preprocess": preprocess(32)}),
        ("seed", {"seed": 2}),
        ("cache_top_k", {"top_k": 5}),
        ("cache_slots", {"slots": 3}),
        ("precision", {"precision": "bf16"}),
    ],
)  # fmt: skip
def test_another_key_is_refused_naming_the_component(tmp_path, component, changes):
    filled(tmp_path)
    with pytest.raises(OutputError) as caught:
        TeacherCache(tmp_path, key(**changes), samples=SAMPLES, classes=10, top_k=10, slots=2)
    text = str(caught.value)
    assert f"the teacher cache was made with another {component} (" in text
    assert "delete the folder to fill it anew, or set teacher_cache: false" in text
    assert "\n" not in text and text.count(" there, ") == 1


def test_every_component_that_differs_is_named(tmp_path):
    filled(tmp_path)
    with pytest.raises(
        OutputError, match=r"another seed \(1 there, 2 here\), teacher \(a{12}... there, b{12}... here\)"
    ):
        cache_at(tmp_path, seed=2, teacher="b" * 64)


def test_batch_size_counts_only_where_batches_are_mixed():
    assert key(batch_size=4).hash() == key(batch_size=8).hash()
    mixed = AugmentRecipe(mixup=0.2)
    assert key(batch_size=4, augment=mixed).hash() != key(batch_size=8, augment=mixed).hash()


def test_a_folder_with_a_broken_key_is_refused(tmp_path):
    (tmp_path / "cache.json").write_text("{")
    with pytest.raises(OutputError, match="is not a teacher cache's key; delete "):
        cache_at(tmp_path)


def test_a_half_written_slot_is_done_again(tmp_path):
    killed = cache_at(tmp_path)
    killed.begin(0)
    killed.store(SAMPLES[:5], 0, -LOGITS[:5])
    killed.flush(0)  # and no finish
    again = cache_at(tmp_path)
    assert not again.complete(0)
    again.begin(0)
    assert again.missing(SAMPLES, 0).all()
    again.store(SAMPLES, 0, LOGITS)
    again.finish(0)
    torch.testing.assert_close(again.lookup(SAMPLES, 0).exp(), LOGITS.softmax(1), rtol=1e-2, atol=1e-3)


def test_a_kill_between_the_two_renames_is_done_again(tmp_path):
    cache = cache_at(tmp_path)
    cache.begin(0)
    cache.store(SAMPLES, 0, -LOGITS)
    (tmp_path / "slot-0000.logp.npy.part").rename(tmp_path / "slot-0000.logp.npy")
    again = filled(tmp_path)
    assert again.complete(0)
    assert cache_at(tmp_path).lookup(SAMPLES[:1], 0).argmax() == LOGITS[0].argmax()
    assert not list(tmp_path.glob("*.part"))


def test_rows_that_the_first_epoch_left_out_are_missing_and_can_be_added(tmp_path):
    cache = cache_at(tmp_path)
    cache.begin(0)
    cache.store(SAMPLES[:6], 0, LOGITS[:6])
    cache.finish(0)
    again = cache_at(tmp_path)
    assert again.missing(SAMPLES, 0).tolist() == [False] * 6 + [True] * 2
    with pytest.raises(PreconditionError, match="slot 0 has no answer; got 'sample 17'"):
        again.lookup(SAMPLES, 0)
    again.store(SAMPLES[6:], 0, LOGITS[6:])
    again.flush(0)
    assert not cache_at(tmp_path).missing(SAMPLES, 0).any()


def test_a_damaged_file_is_refused(tmp_path):
    filled(tmp_path)
    file = tmp_path / "slot-0000.logp.npy"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(OutputError, match=r"slot-0000.logp.npy: is damaged; delete it"):
        cache_at(tmp_path).lookup(SAMPLES, 0)


@pytest.mark.parametrize("sample", [0, 4, -1, 10_000])
def test_foreign_samples_are_refused(tmp_path, sample):
    cache = filled(tmp_path)
    with pytest.raises(PreconditionError, match=f"is no training sample of this cache; got {sample}"):
        cache.lookup(np.array([2, sample]), 0)


def test_nan_and_other_classes_are_refused_before_anything_is_stored(tmp_path):
    cache = cache_at(tmp_path)
    cache.begin(0)
    broken = LOGITS.clone()
    broken[3, 2] = float("nan")
    with pytest.raises(ModelError, match="answers NaN or infinity; got 'sample 7'"):
        cache.store(torch.from_numpy(SAMPLES), 0, broken)
    with pytest.raises(ModelError, match=r"answers with another shape; got \(8, 4\)"):
        cache.store(torch.from_numpy(SAMPLES), 0, LOGITS[:, :4])
    assert cache.missing(SAMPLES, 0).all()


def test_size_is_known_beforehand(tmp_path):
    filled(tmp_path, slots=1)
    on_disk = sum(file.stat().st_size for file in tmp_path.glob("*.npy"))
    assert bytes_needed(8, 10, 1, classes=10) == on_disk
    assert bytes_needed(1_281_167, 100, 2) == pytest.approx(2 * 1_281_167 * 400, rel=1e-3)


def test_too_little_space_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 600})())
    with pytest.raises(
        OutputError, match="too little free space for the teacher cache; got '0 MiB'; allowed: at least"
    ):
        cache_at(tmp_path)
    filled_path = tmp_path / "filled"
    monkeypatch.undo()
    filled(filled_path, slots=1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 0})())
    cache_at(filled_path, slots=1)  # needs nothing more


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = cache_at(tmp_path)
    monkeypatch.setattr(slot_files.os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="the disk is full"):
        cache.begin(0)
    assert [file.name for file in tmp_path.iterdir()] == ["cache.json"]


def test_a_path_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        cache_at(tmp_path / "file")


def test_lookup_of_a_batch_is_fast(tmp_path):
    """Processor time of the fastest quarter, so that a busy machine does not count."""
    samples = np.arange(20_000)
    cache = cache_at(tmp_path, samples=samples, slots=1)
    cache.begin(0)
    cache.store(samples, 0, torch.randn(20_000, 10))
    batches = [torch.randint(0, 20_000, (256,)) for _ in range(40)]
    seconds = []
    for batch in batches:
        start = time.thread_time()
        cache.lookup(batch, 0)
        seconds.append(time.thread_time() - start)
    assert sorted(seconds)[10] < 1e-3
