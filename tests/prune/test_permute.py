"""Permuting channels keeps the function and does not lower the kept magnitude."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.prune import trial
from edgekd.prune.apply import prune
from edgekd.prune.channels import ChannelGroup
from edgekd.prune.permute import permute_channels


class Residual(nn.Module):
    """Batch norm, an add with a shortcut, a depthwise convolution, a squeeze-excite and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(16)
        self.expand = nn.Conv2d(16, 32, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.act = nn.PReLU(32)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.project = nn.Conv2d(32, 16, 1)
        self.project_norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 8)
        nn.init.zeros_(self.project_norm.weight)  # as a fresh residual net has it

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem_norm(self.stem(images)).relu()
        wide = self.act(self.depthwise(self.expand_norm(self.expand(stem)).relu()))
        wide = wide * self.excite(self.squeeze(wide.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head((stem + self.project_norm(self.project(wide))).mean((2, 3)))


def randomise(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Weights whose channels differ in loudness, so that the order matters; norms as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                noise = torch.randn(part.weight.shape, generator=generator) * 0.2
                part.weight.copy_(noise * torch.rand(1, part.weight.shape[1], *[1] * (noise.dim() - 2)))
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                if part.weight.any():
                    part.weight.uniform_(0.5, 1.5, generator=generator)
            if isinstance(part, nn.PReLU):
                part.weight.uniform_(0.1, 0.5, generator=generator)
    return model.eval()


def check_same_function(model: nn.Module, images: Tensor, **options: int) -> tuple[nn.Module, object]:
    """Permute a copy: its answers stay within 1e-5 and nothing keeps less than before."""
    permuted = copy.deepcopy(model)
    report = permute_channels(permuted, "2:4", images, **options)
    with torch.no_grad():
        assert torch.allclose(permuted(images), model(images), atol=1e-5, rtol=1e-5)
    assert report.kept_after >= report.kept_before
    assert all(group.kept_after >= group.kept_before for group in report.groups)
    return permuted, report


def test_a_residual_net_with_depthwise_and_squeeze_excite() -> None:
    torch.manual_seed(0)
    model, images = randomise(Residual()), torch.randn(4, 3, 8, 8)
    permuted, report = check_same_function(model, images)
    assert report.reason is None
    assert report.skipped == []
    readers = sorted(sorted(group.layers) for group in report.groups)
    assert readers == [["excite"], ["expand", "head"], ["project", "squeeze"]]
    assert report.kept_after > report.kept_before + 0.005
    assert not torch.equal(permuted.depthwise.weight, model.depthwise.weight)
    # The inputs' and the outputs' order is nobody's to change.
    moved = permuted.stem.weight
    order = [int((row == moved).flatten(1).all(1).nonzero()) for row in model.stem.weight]
    assert sorted(order) == list(range(16)), "whole filters moved, none was reordered inside"
    assert torch.equal(permuted.head.bias, model.head.bias)
    # What the report promises is what pruning then keeps.
    pruned = prune(permuted, "2:4", permutation=report)
    assert pruned.kept_magnitude == pytest.approx(report.kept_after, abs=1e-6)
    assert pruned.to_json()["permutation"]["kept_before"] == report.kept_before


def test_the_branch_behind_a_zero_gamma_is_permuted_rightly_too() -> None:
    """A gamma of 0 hides a mistake in its branch; it must not show once the gamma is trained."""
    torch.manual_seed(0)
    model, images = randomise(Residual()), torch.randn(4, 3, 8, 8)
    permuted, _ = check_same_function(model, images)
    for net in (model, permuted):
        # project_norm's own channels were permuted: give both nets the same gamma for the same channel.
        nn.init.ones_(net.project_norm.weight)
    with torch.no_grad():
        assert torch.allclose(permuted(images), model(images), atol=1e-5, rtol=1e-5)


def test_the_same_seed_gives_the_same_order_and_flags_stay() -> None:
    torch.manual_seed(0)
    model, images = randomise(Residual()), torch.randn(2, 3, 8, 8)
    model.train()
    model.stem.weight.requires_grad_(False)
    first, second = copy.deepcopy(model), copy.deepcopy(model)
    torch.manual_seed(1)
    permute_channels(first, "2:4", images)
    torch.manual_seed(2)
    permute_channels(second, "2:4", images)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert all(part.training for part in first.modules())
    assert not first.stem.weight.requires_grad
    assert first.expand.weight.requires_grad


def test_a_timm_net() -> None:
    ensure_torchvision_ops()
    import timm

    torch.manual_seed(0)
    model = randomise(timm.create_model("test_resnet", num_classes=8))
    _, report = check_same_function(model, torch.randn(2, 3, 64, 64))
    assert report.reason is None
    assert len(report.groups) >= 8
    assert report.kept_after > report.kept_before


def test_concatenation_and_grouped_convolutions_are_left_with_a_reason() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
            self.join = nn.Conv2d(16, 16, 1)
            self.grouped = nn.Conv2d(16, 16, 1, groups=2)
            self.last = nn.Conv2d(16, 8, 1)
            self.head = nn.Linear(8, 4)

        def forward(self, images: Tensor) -> Tensor:
            joined = self.join(torch.cat([self.left(images).relu(), self.right(images).relu()], 1)).relu()
            return self.head(self.last(self.grouped(joined).relu()).relu().mean((2, 3)))

    torch.manual_seed(0)
    _, report = check_same_function(randomise(Mixed()), torch.randn(2, 3, 8, 8))
    reasons = dict(report.skipped)
    assert reasons["left"] == reasons["right"] == "join holds them among others or in another order"
    assert reasons["join"] == reasons["grouped"] == "grouped is a grouped convolution"
    assert [group.layers for group in report.groups] == [["head"]]


@pytest.mark.parametrize(("side", "outcome"), [(2, "moved"), (3, "mixes 9 places")])
def test_a_flatten_before_the_head(side: int, outcome: str) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 16, 1)
            self.second = nn.Conv2d(16, 16, 1)
            self.head = nn.Linear(16 * side * side, 4)

        def forward(self, images: Tensor) -> Tensor:
            first = self.first(images).relu()
            return self.head((first + self.second(first)).flatten(1))

    torch.manual_seed(0)
    model = randomise(Flat())
    permuted, report = check_same_function(model, torch.randn(2, 3, side, side))
    if outcome == "moved":
        assert [group.layers for group in report.groups] == [["second"]]
        assert not torch.equal(permuted.head.weight, model.head.weight)
    else:
        assert outcome in dict(report.skipped).popitem()[1]
        assert torch.equal(permuted.head.weight, model.head.weight)


def test_an_operation_that_knows_its_channels_is_found_out() -> None:
    """A product with a fixed vector looks elementwise; trying it out tells, even behind a gamma of 0."""

    class Ramp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)
            self.back, self.norm = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
            self.head = nn.Linear(16, 4)
            self.register_buffer("ramp", torch.linspace(0, 1, 16).reshape(1, 16, 1, 1))
            nn.init.zeros_(self.norm.weight)

        def forward(self, images: Tensor) -> Tensor:
            stem = self.stem(images).relu()
            inner = self.inner(stem).relu() * self.ramp
            return self.head((stem + self.norm(self.back(inner))).mean((2, 3)))

    torch.manual_seed(0)
    _, report = check_same_function(randomise(Ramp()), torch.randn(2, 3, 8, 8))
    assert report.skipped == [("inner", "moving them changes the answers")]
    assert sorted(report.groups[0].layers) == ["head", "inner"]


def test_channels_that_the_answers_do_not_depend_on_cannot_be_tried_out() -> None:
    class Muted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.back = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
            self.head = nn.Linear(16, 4)

        def forward(self, images: Tensor) -> Tensor:
            stem = self.stem(images).relu()
            return self.head((stem + 0 * self.back(self.inner(stem).relu())).mean((2, 3)))

    torch.manual_seed(0)
    _, report = check_same_function(randomise(Muted()), torch.randn(2, 3, 8, 8))
    assert report.skipped == [
        ("inner", "the answers do not depend on their order, so it cannot be tried out")
    ]


def test_a_proposal_that_forgets_a_batch_norm_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = trial.propose_groups

    def forgetful(*args: object) -> list[tuple[ChannelGroup, str | None]]:
        return [
            (ChannelGroup(g.root, g.channels, tuple(c for c in g.couplings if "norm" not in c.layer)), reason)
            for g, reason in honest(*args)
        ]

    monkeypatch.setattr(trial, "propose_groups", forgetful)
    torch.manual_seed(0)
    _, report = check_same_function(randomise(Residual()), torch.randn(2, 3, 8, 8))
    assert [group.layers for group in report.groups] == [["excite"]], "the one set without a batch norm"
    assert len(report.skipped) == 2


class PairsOnly(nn.Module):
    """Refuses a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs.reshape(2, 8)))


class Detached(PairsOnly):
    """Gives the dependency graph nothing to follow."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs)).detach()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (PairsOnly, "no permutation: torch-pruning cannot trace this model (RuntimeError: shape '[2, 8]'"),
        (Detached, "no permutation: torch-pruning finds no channels that a maskable layer reads"),
    ],
)
def test_a_model_that_cannot_be_traced_is_a_reason_and_not_a_failure(
    kind: type[nn.Module], reason: str
) -> None:
    model = kind()
    before = copy.deepcopy(model.state_dict())
    report = permute_channels(model, "2:4", torch.randn(2, 8))
    assert report.reason is not None
    assert report.reason.startswith(reason)
    assert "\n" not in report.reason
    assert report.kept_after == report.kept_before
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_masked_model_is_left_alone() -> None:
    model = randomise(Residual())
    prune(model, "2:4")
    report = permute_channels(model, "2:4", torch.randn(2, 3, 8, 8))
    assert report.reason == "no permutation: weights are masked or quantized already"


def test_excluded_layers_move_along_but_do_not_count() -> None:
    torch.manual_seed(0)
    model, images = randomise(Residual()), torch.randn(2, 3, 8, 8)
    _, report = check_same_function(model, images, exclude=["head", "squeeze"])
    assert sorted(group.layers for group in report.groups) == [["excite"], ["expand"], ["project"]]
