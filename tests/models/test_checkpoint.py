"""Checkpoints: what is understood, what is refused, and that no code in them runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.checkpoint import align_names, compare, read_checkpoint

WHERE = "recipe.yaml: teacher"


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path, WHERE)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10)).state_dict()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {"model_state_dict": s, "optimizer": {"lr": 0.1}},
        lambda s: {"ema": s},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"state_dict_ema": s, "state_dict": {n: t * 2 for n, t in s.items()}},
        lambda s: {**s, "epoch": 3},
    ],
)
def test_wrappers(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pth")
    found = read_checkpoint(tmp_path / "w.pth", WHERE)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_safetensors(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    assert read_checkpoint(tmp_path / "w.safetensors", WHERE).keys() == state.keys()


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "net.", "module.my.net."],
)
def test_prefixes_go(state, prefix):
    prefixed = {prefix + name: tensor for name, tensor in state.items()}
    assert align_names(prefixed, state).keys() == state.keys()


def test_a_prefix_that_the_model_itself_has_stays(state):
    own = {f"model.{name}": tensor for name, tensor in state.items()}
    assert align_names(own, own).keys() == own.keys()
    assert align_names({f"module.{name}": t for name, t in own.items()}, own).keys() == own.keys()


def test_prefixes_never_merge_two_names():
    state = {"model.a": torch.zeros(1), "a": torch.ones(1), "model.b": torch.ones(1)}
    assert align_names(state, ["a", "b"]).keys() == state.keys()


def test_compare_ignores_only_batch_counts_and_the_named_head(state):
    short = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert compare(short, state) is None
    short.pop("3.bias")
    assert compare(short, state) == "1 missing, first '3.bias' (10,)"
    assert compare(short, state, optional=("3",)) is None
    assert compare({**state, "x": torch.zeros(2)}, state) == "1 unexpected, first 'x' (2,)"


class Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path, state, zipped):
    proof = tmp_path / "ran"
    content = {"state_dict": state, "extra": Malicious(f"touch {proof}")}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    message = refusal(tmp_path / "evil.pth")
    assert "code in it" in message
    assert not proof.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert proof.exists(), "the pickle of this test is harmless, so the test proves nothing"


def test_a_pickled_module_is_code(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    assert "torch.save(model.state_dict(), FILE)" in refusal(tmp_path / "module.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "old.pth"])
@pytest.mark.parametrize("keep", [0, 5, 60, 0.5, 0.99])
def test_truncated_files(tmp_path, state, name, keep):
    path = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "w.pth")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if keep < 1 else keep])
    assert "corrupt, truncated or not a checkpoint" in refusal(path)


def test_text_is_not_a_checkpoint(tmp_path):
    path = tmp_path / "w.pth"
    path.write_text("these are no weights\n" * 100)
    assert "corrupt" in refusal(path)


def test_missing_file_and_folder(tmp_path):
    assert "no such checkpoint" in refusal(tmp_path / "missing.pth")
    assert "is a folder" in refusal(tmp_path)


def test_no_tensors(tmp_path):
    torch.save({"epoch": 3, "note": "hello"}, tmp_path / "w.pth")
    message = refusal(tmp_path / "w.pth")
    assert "no named tensors" in message
    assert "epoch" in message
