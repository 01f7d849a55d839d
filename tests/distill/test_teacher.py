from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.distill.cache_key import CacheKey
from edgekd.distill.objectives.base import Needs
from edgekd.distill.teacher import Teacher, fingerprint
from edgekd.distill.teacher_cache import TeacherCache
from edgekd.errors import ModelError, PreconditionError, RecipeError
from edgekd.preprocess import Preprocess
from edgekd.recipe_stages import AugmentRecipe

COUNT = 22
IMAGES = torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(0))


class Counted(nn.Module):
    """Counts the samples that it answers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 5))
        self.answered = 0

    def forward(self, x):
        self.answered += len(x)
        return self.net(x)


def cache_at(path, top_k=5, slots=1) -> TeacherCache:
    samples = np.arange(COUNT)
    key = CacheKey.of(
        teacher="t", data="d", samples=samples, augment=AugmentRecipe(),
        preprocess=Preprocess(height=1, width=1), seed=0, top_k=top_k, slots=slots, batch_size=4,
    )  # fmt: skip
    return TeacherCache(path, key, samples=samples, classes=5, top_k=top_k, slots=slots)


def epoch(teacher: Teacher, seed: int, slot: int = 0) -> dict[int, torch.Tensor]:
    """One epoch of 5 batches of 4 that drops the last 2 samples."""
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(seed))[: COUNT // 4 * 4]
    answers = {}
    teacher.begin_slot(slot)
    for batch in order.split(4):
        answers |= dict(zip(batch.tolist(), teacher.answers(IMAGES[batch], batch, slot), strict=True))
    teacher.end_slot(slot)
    return answers


def test_it_is_frozen_and_stays_in_eval_mode():
    module = Counted().train()
    before = copy.deepcopy(module.state_dict())
    teacher = Teacher(module)
    assert not any(each.requires_grad for each in module.parameters())
    module.train()
    first, second = teacher.answers(IMAGES), teacher.answers(IMAGES)
    assert torch.equal(first, second)
    assert not teacher.answers(IMAGES.clone().requires_grad_()).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_its_answers_can_stand_in_a_loss_that_is_differentiated():
    student = nn.Linear(6, 5)
    (student(IMAGES) * Teacher(Counted()).answers(IMAGES)).sum().backward()
    assert student.weight.grad.abs().sum() > 0


def test_autocast_runs_in_the_given_precision_and_none_leaves_the_surrounding_one():
    module = Counted()
    assert Teacher(module, autocast=torch.bfloat16).answers(IMAGES).dtype == torch.bfloat16
    assert Teacher(module).answers(IMAGES).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert Teacher(module).answers(IMAGES).dtype == torch.bfloat16


def test_the_second_epoch_asks_only_for_what_the_first_dropped(tmp_path):
    teacher = Teacher(Counted(), cache=cache_at(tmp_path))
    first = epoch(teacher, seed=1)
    assert teacher.module.answered == 20
    second = epoch(teacher, seed=2)
    assert teacher.module.answered == 20 + len(set(second) - set(first)) < 23
    shared = set(first) & set(second)
    assert len(shared) >= 18 and all(torch.equal(first[i], second[i]) for i in shared)
    exact = Teacher(Counted())(IMAGES).log_softmax(1)
    for i, row in second.items():
        torch.testing.assert_close(row, exact[i], rtol=2e-3, atol=2e-3)


def test_a_full_cache_gives_the_numbers_of_the_run_that_filled_it(tmp_path):
    """Few classes are kept, so live logits would differ: a resumed run must not see them."""
    filling = Teacher(Counted(), cache=cache_at(tmp_path, top_k=2))
    cold = epoch(filling, seed=1)
    repeated = Teacher(Counted(), cache=cache_at(tmp_path, top_k=2))
    warm = epoch(repeated, seed=1)
    assert repeated.module.answered == 0
    assert all(torch.equal(cold[i], warm[i]) for i in cold)


def test_a_killed_first_epoch_starts_over(tmp_path):
    killed = Teacher(Counted(), cache=cache_at(tmp_path))
    killed.begin_slot(0)
    killed.answers(IMAGES[:4] + 1, torch.arange(4), 0)  # what another attempt wrote
    resumed = Teacher(Counted(), cache=cache_at(tmp_path))
    resumed.begin_slot(0)
    resumed.answers(IMAGES[:4], torch.arange(4), 0)
    assert resumed.module.answered == 4


def test_seconds_in_total_and_by_epoch(tmp_path):
    class Slow(Counted):
        def forward(self, x):
            time.sleep(0.05)
            return super().forward(x)

    teacher = Teacher(Slow(), cache=cache_at(tmp_path))
    epoch(teacher, seed=1)
    epoch(teacher, seed=1)
    assert set(teacher.seconds_by_epoch) == {0, 1}
    assert teacher.seconds == pytest.approx(sum(teacher.seconds_by_epoch.values()))
    assert teacher.seconds_by_epoch[0] > 5 * 0.05 > teacher.seconds_by_epoch[1]
    teacher.begin_slot(0, epoch=7)
    teacher.answers(IMAGES[:1], torch.tensor([0]), 0)
    assert 7 in teacher.seconds_by_epoch


def test_a_cache_needs_indices_and_serves_no_features(tmp_path):
    cache = cache_at(tmp_path)
    with pytest.raises(PreconditionError, match="needs the batch's sample indices"):
        Teacher(Counted(), cache=cache).answers(IMAGES)
    with pytest.raises(RecipeError, match="teacher_cache: true with an objective that reads features"):
        Teacher(Counted(), cache=cache, needs=Needs(teacher_logits=True, features=True))


def test_fingerprint_follows_weights_names_buffers_and_submodules():
    one = Counted()
    same = copy.deepcopy(one)
    same.answered = 99
    assert fingerprint(one) == fingerprint(same) == Teacher(same).fingerprint()
    seen = {fingerprint(one)}
    for change in (
        lambda module: module.net[0].weight.data[0, 0].add_(1e-6),
        lambda module: module.net[1].running_mean[0].add_(1),
        lambda module: module.net.__setitem__(2, nn.ReLU()),  # no state of its own
        lambda module: module.double(),
    ):
        changed = copy.deepcopy(one)
        change(changed)
        seen.add(fingerprint(changed))
    assert len(seen) == 5


def test_fingerprint_takes_every_dtype_and_empty_tensors():
    module = nn.Module()
    for name, value in (
        ("a", torch.tensor(True)), ("b", torch.zeros(0, 3)), ("c", torch.zeros(2, dtype=torch.bfloat16)),
        ("d", torch.arange(6).reshape(2, 3).T),
    ):  # fmt: skip
        module.register_buffer(name, value)
    assert len(fingerprint(module)) == 64


@pytest.mark.parametrize("attribute", ["onnx_path", "path"])
def test_fingerprint_of_a_black_box_is_its_files(tmp_path, attribute):
    def box(content: bytes) -> nn.Module:
        (tmp_path / "net.onnx").write_bytes(content)
        module = nn.Identity()
        setattr(module, attribute, tmp_path / "net.onnx")
        return module

    assert fingerprint(box(b"1")) != fingerprint(box(b"2"))
    assert fingerprint(box(b"1")) == fingerprint(box(b"1"))
    assert Teacher(box(b"1")).is_black_box and not Teacher(Counted()).is_black_box
    with pytest.raises(ModelError, match="has no weights to identify it by"):
        fingerprint(nn.Identity())


def test_only_the_first_process_makes_and_renames_the_files(tmp_path, monkeypatch):
    waited = []
    for rank in (1, 0):
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("torch.distributed.barrier", lambda: waited.append(1))
        teacher = Teacher(Counted(), cache=cache_at(tmp_path))
        teacher.begin_slot(0)
        assert bool(list(tmp_path.glob("*.part"))) == (rank == 0)
    other = Teacher(Counted(), cache=cache_at(tmp_path))
    other.end_slot(0, main_process=False)
    assert not other.cache.complete(0)
    other.end_slot(0)
    assert other.cache.complete(0) and len(waited) == 6


def test_two_processes_fill_one_slot(tmp_path):
    """Each writes its own half; torch.distributed gives the roles and the barriers."""
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path
            import numpy as np, torch
            from edgekd.distill.cache_key import CacheKey
            from edgekd.distill.teacher import Teacher
            from edgekd.distill.teacher_cache import TeacherCache

            rank, folder = int(sys.argv[1]), Path(sys.argv[2])
            store = f"file://{folder}/store"
            torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
            key, samples = CacheKey({"teacher": "t"}), np.arange(12)
            cache = TeacherCache(folder / "cache", key, samples=samples, classes=4, top_k=4)
            teacher = Teacher(torch.nn.Linear(4, 4), cache=cache)
            with torch.no_grad():
                teacher.module.weight.copy_(torch.eye(4)); teacher.module.bias.zero_()
            images = torch.arange(48.0).reshape(12, 4).sin()
            teacher.begin_slot(0)
            for batch in torch.arange(12)[rank::2].split(3):
                teacher.answers(images[batch], batch, 0)
            teacher.end_slot(0)
            assert cache.complete(0)
            error = (cache.lookup(torch.arange(12), 0) - images.log_softmax(1)).abs().max()
            assert error < 2e-3, error
            torch.distributed.destroy_process_group()
            """
        )
    )
    workers = [
        subprocess.Popen([sys.executable, script, str(rank), tmp_path], stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors.decode()
    assert not list((tmp_path / "cache").glob("*.part"))
