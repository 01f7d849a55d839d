"""The stages that leave a smaller network: targets, refusals before training, steps, resume."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from edgekd.errors import PreconditionError
from edgekd.models.resolve import resolve_model
from edgekd.recipe import InputRecipe
from edgekd.recipe_stages import (
    AugmentRecipe,
    ChannelStage,
    DepthStage,
    LowRankStage,
    ObjectiveRecipe,
    PruneStage,
    QuantizeStage,
)
from edgekd.stages import STAGES
from edgekd.stages.prune_channels import PruneChannels

KD = {"kd": ObjectiveRecipe(temperature=2)}
COMMON = {"batch_size": 64, "lr": 5e-3, "objectives": KD, "augment": AugmentRecipe(hflip=0.0), "epochs": 1}

DEEP = """
import torch
from torch import nn
from torch.nn import functional as F

PREPROCESS = {"height": 8, "width": 8, "channels": 1, "mean": [0.3], "std": [0.35], "interpolation": "bilinear"}


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        return x + F.relu(self.conv(x))


class Net(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 16, 3, padding=1)
        self.blocks = nn.Sequential(Branch(), Branch(), Branch())
        self.wide = nn.Linear(16, 48)
        self.head = nn.Linear(48, num_classes)

    def forward(self, x):
        return self.head(F.relu(self.wide(self.blocks(F.relu(self.stem(x))).mean((2, 3)))))


def net(num_classes=10, in_chans=1):
    return Net(num_classes, in_chans)
"""


@pytest.fixture
def deep(nets):
    (nets / "deep.py").write_text(DEEP)
    torch.manual_seed(0)
    loaded = resolve_model(
        "torch:deep.py:net", classes=10, input=InputRecipe(), base=nets, where="s", role="student"
    )
    return loaded.module.requires_grad_(True)


def stage(kind, **more):
    settings = kind(**(COMMON | more))
    return STAGES[type(settings)](settings)


def channels(**more) -> PruneChannels:
    return stage(ChannelStage, **({"round_to": 4} | more))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)


def test_half_the_multiply_accumulates_in_two_steps(context, student):
    first = channels(macs=0.5, steps=2, epochs=2)
    first.requires(student, context)
    outcome = first.apply(student, context)
    first.ensures(outcome.model)
    facts = outcome.facts
    assert 0.44 < facts["macs_after"] / facts["macs_before"] <= 0.525
    assert len(facts["cuts"]) == 2 and [entry["epoch"] for entry in outcome.history] == [0, 1, 2]
    assert facts["kept"]["second"][1] == 48 and facts["kept"]["second"][0] % 4 == 0
    assert outcome.model.head.weight.shape[0] == 10


def test_what_the_facts_say_rebuilds_the_structure(context, student):
    dense = copy.deepcopy(student)
    first = channels(ratio=0.5)
    outcome = first.apply(student, context)
    again = first.attach(dense, outcome.facts, context)
    again.load_state_dict(outcome.model.state_dict())
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(x), outcome.model(x))


@pytest.mark.parametrize("saliency", ["l1", "taylor", "bn-scale"])
def test_a_stage_that_is_stopped_between_its_steps_ends_in_the_same_bytes(context, student, saliency):
    """The second run finds the first step's checkpoint and none of the second's."""
    start = copy.deepcopy(student)
    settings = {"ratio": 0.5, "steps": 2, "saliency": saliency}
    undisturbed = channels(**settings).apply(student, context)
    (context.folder / "checkpoint.pt").unlink()
    assert (context.folder / "step-1" / "checkpoint.pt").exists()
    resumed = channels(**settings).apply(start, context)
    assert same(undisturbed.model, resumed.model)
    assert undisturbed.facts == resumed.facts


def test_channels_then_masks_then_integers(context, student):
    first, second = channels(ratio=0.5), stage(PruneStage)
    third = stage(QuantizeStage)
    model = first.apply(student, context).model
    model = second.apply(model, replace(context, name="b", folder=context.folder / "b")).model
    model = third.apply(model, replace(context, name="c", folder=context.folder / "c")).model
    for each in (first, second, third):
        each.ensures(model)
    assert model.model.second.weight.shape == (24, 12, 3, 3)
    kept = (model.model.second.weight.movedim(1, -1).reshape(-1, 4) != 0).sum(-1)
    assert int(kept.max()) <= 2


def test_blocks_go_and_thin_layers_come(context, deep):
    depth = stage(DepthStage, blocks=1)
    depth.requires(deep, context)
    before = copy.deepcopy(deep)
    outcome = depth.apply(deep, context)
    assert len(outcome.facts["dropped"]) == 1 and outcome.facts["blocks"] == 3
    low = stage(LowRankStage, compression=2)
    low.requires(outcome.model, context)
    after = low.apply(outcome.model, replace(context, name="b", folder=context.folder / "b"))
    depth.ensures(after.model)
    assert after.facts["params_after"] < after.facts["params_before"] < outcome.facts["params_before"]
    rebuilt = low.attach(depth.attach(before, outcome.facts, context), after.facts, context)
    rebuilt.load_state_dict(after.model.state_dict())
    assert same(rebuilt, after.model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0.99}, "prune.ratio: would remove all 24 channels of"),
        ({"macs": 0.0001}, "prune.macs: cannot be met: the least is"),
        ({"ratio": 0.5, "exclude": ["*"]}, "no channels of this model can go"),
        ({"ratio": 0.5, "objectives": {"squarehead": ObjectiveRecipe()}}, "after the cut"),
    ],
)
def test_what_cannot_be_is_said_before_training(context, student, settings, message):
    before = copy.deepcopy(student)
    with pytest.raises(PreconditionError) as caught:
        channels(**settings).requires(student, context)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert same(before, student)


def test_a_latency_target_is_for_the_machine_at_hand(context, student):
    with pytest.raises(PreconditionError, match="can only be measured on the machine at hand"):
        channels(latency_ms=1.0).requires(student, replace(context, device="raspberry-pi-5"))


def test_a_latency_target_is_searched_once(context, student, monkeypatch):
    """A clock that counts multiply-accumulates: the search finds the width, a resumed run measures nothing."""
    from types import SimpleNamespace

    from edgekd.stages import prune_channels

    measured = []

    def clock(files, **settings):
        import onnx

        size = sum(len(t.raw_data) for t in onnx.load(str(files["candidate"])).graph.initializer)
        measured.append(size)
        return SimpleNamespace(reports={"candidate": SimpleNamespace(p50_ms=size / 1000)})

    monkeypatch.setattr(prune_channels, "measure", clock)
    start = copy.deepcopy(student)
    outcome = channels(latency_ms=30.0).apply(student, context)
    assert measured and outcome.facts["params_after"] * 4 / 1000 == pytest.approx(30, rel=0.15)
    count = len(measured)
    (context.folder / "checkpoint.pt").unlink()
    assert same(channels(latency_ms=30.0).apply(start, context).model, outcome.model)
    assert len(measured) == count
    with pytest.raises(PreconditionError, match="the fastest measured takes"):
        channels(latency_ms=0.001).apply(start, replace(context, folder=context.folder / "other"))


def test_depth_refuses_what_leaves_nothing(context, deep, student):
    with pytest.raises(
        PreconditionError, match="would leave none of the residual blocks; got 3; allowed: fewer than 3"
    ):
        stage(DepthStage, blocks=3).requires(deep, context)
    with pytest.raises(PreconditionError, match="no residual block"):
        stage(DepthStage, blocks=1).requires(student, context)


def test_low_rank_refuses_what_leaves_nothing(context, deep):
    with pytest.raises(PreconditionError, match="leaves no layer that becomes thinner"):
        stage(LowRankStage, compression=1000).requires(deep, context)


def test_low_rank_of_convolutions_alone_names_what_thins_them(context, student):
    with pytest.raises(PreconditionError, match=r"answers for the model.*; use method: channels"):
        stage(LowRankStage, compression=2).requires(student, context)
