"""Channels and heads that go together: found, proven, cut, and the rest left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import PreconditionError, RecipeError
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.prune.amounts import (
    between,
    counts_for,
    pruned_copy,
    removal_of,
    require_units_left,
    rounded,
    search_counts,
)
from edgekd.prune.find import find_unit_groups
from edgekd.prune.proof import Proof
from edgekd.prune.unit_saliency import collect_gradients, unit_scores
from edgekd.prune.units import Slice, UnitGroup, remove_units, shrink_groups, zero_readers


def timm_net(name: str, **settings: object) -> nn.Module:
    ensure_torchvision_ops()
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, num_classes=6, **settings).eval()


class Small(nn.Module):
    """A residual pair, a grouped and a depthwise convolution, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.inner = nn.Conv2d(16, 12, 3, padding=1)
        self.back = nn.Conv2d(12, 16, 1)
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.side = nn.Conv2d(3, 8, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(40, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.stem(x)))
        y = y + self.back(torch.relu(self.inner(y)))
        y = torch.relu(self.depthwise(self.grouped(y)))
        y = self.pool(torch.cat([y, torch.relu(self.side(x))], 1)).flatten(1)
        return self.head(torch.relu(self.hidden(y)))


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small().eval()


EXAMPLE = torch.zeros(2, 3, 8, 8)


def found(module: nn.Module, example: torch.Tensor = EXAMPLE) -> dict[str, UnitGroup]:
    return {group.root: group for group in find_unit_groups(module, example)[0]}


def test_every_set_of_a_small_net_is_found_and_the_classifier_is_not(small):
    groups, skipped = find_unit_groups(small, EXAMPLE)
    by_layer = {layer: group for group in groups for layer in group.layers}
    assert {group.units for group in groups} == {4, 8, 12, 24}
    assert by_layer["grouped"].units == 4 and by_layer["grouped"].width == 8
    assert by_layer["stem"] is by_layer["back"] is by_layer["grouped"] is by_layer["depthwise"]
    assert skipped == [("head", "they are the model's output, or nobody reads them")]


def test_the_places_of_a_channel_go_together_through_a_flatten():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)).eval()
    (group,) = found(net).values()
    remove_units(net, [group], {group.root: [0, 2]})
    assert net[3].in_features == 16 and net(EXAMPLE).shape == (2, 5)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_what_is_cut_is_what_the_readers_would_have_ignored(small, share):
    groups = list(found(small).values())
    scores = unit_scores(small, groups, "l2")
    removal = removal_of(
        groups, counts_for(groups, share, round_to=1, scope="uniform", scores=scores), scores
    )
    ignoring, cut = Small().eval(), Small().eval()
    ignoring.load_state_dict(small.state_dict())
    cut.load_state_dict(small.state_dict())
    zero_readers(ignoring, groups, removal)
    remove_units(cut, groups, removal)
    x = torch.randn(4, 3, 8, 8)
    assert (cut(x) - ignoring(x)).abs().max() < 1e-5
    assert (cut(x) - small(x)).abs().max() > 1e-3
    if share == 0.5:
        assert (cut.grouped.groups, cut.grouped.in_channels, cut.grouped.out_channels) == (2, 8, 16)
        assert (cut.depthwise.groups, cut.hidden.in_features, cut.norm.num_features) == (16, 20, 8)


def test_a_set_that_is_read_wrongly_is_found_out(small):
    """One position of the reader belongs to another unit: the cut network computes something else."""
    proof = Proof(small, EXAMPLE)
    group = next(group for group in found(small).values() if group.root == "inner")
    wrong = [
        Slice(p.tensor, p.dim, p.positions, tuple(reversed(p.units)), p.role, p.attributes) if p.role == "read" else p
        for p in group.slices
    ]  # fmt: skip
    bad = UnitGroup(group.root, group.units, tuple(wrong))
    assert proof.accepted([group])[0] == [group]
    good, reasons = proof.accepted([bad])
    assert good == [] and "changes more than what they carried" in reasons[0][1]


class Hard(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(y.reshape(len(y), 16, -1).mean(-1))


def test_a_reshape_with_its_sizes_written_down_keeps_that_layer_whole():
    torch.manual_seed(0)
    groups, skipped = find_unit_groups(Hard().eval(), EXAMPLE)
    assert [group.root for group in groups] == ["first"]
    reasons = dict(skipped)
    assert "smaller network" in reasons["second"] or "carried" in reasons["second"]


@pytest.mark.parametrize(
    ("name", "size", "settings", "heads"),
    [
        ("test_resnet", 32, {}, 0),
        ("test_efficientnet", 32, {}, 0),
        ("test_vit", 32, {"img_size": 32}, 6),
        ("regnety_002", 32, {}, 0),
        ("poolformer_s12", 32, {}, 0),
        (
            "swin_tiny_patch4_window7_224",
            56,
            {"img_size": 56, "embed_dim": 32, "depths": (1, 1), "num_heads": (2, 4)},
            2,
        ),
        ("fastvit_t8", 64, {}, 0),
    ],
)
def test_families_lose_half_of_their_channels_and_still_answer(name, size, settings, heads):
    model = timm_net(name, **settings)
    example = torch.zeros(1, 3, size, size)
    groups, _ = find_unit_groups(model, example)
    assert sum(group.kind == "heads" for group in groups) == heads
    scores = unit_scores(model, groups, "l2")
    counts = counts_for(groups, 0.5, round_to=8, scope="uniform", scores=scores)
    cut = pruned_copy(model, groups, counts, scores)
    answers = cut(torch.randn(2, 3, size, size))
    assert answers.shape == (2, 6) and torch.isfinite(answers).all()
    before, after = (sum(p.numel() for p in net.parameters()) for net in (model, cut))
    assert after < 0.62 * before


def test_heads_go_whole_and_the_attention_counts_them():
    model = timm_net("vit_tiny_patch16_224", img_size=32, depth=2)
    groups = {group.root: group for group in find_unit_groups(model, torch.zeros(1, 3, 32, 32))[0]}
    assert groups["blocks.0.attn.qkv"].kind == "heads" and groups["blocks.0.attn.qkv"].width == 64
    assert any("pos_embed" in piece.tensor for group in groups.values() for piece in group.slices)
    remove_units(model, groups.values(), {"blocks.0.attn.qkv": [1]})
    attention = model.blocks[0].attn
    assert (attention.num_heads, attention.attn_dim, attention.head_dim) == (2, 128, 64)
    assert attention.qkv.weight.shape == (384, 192) and attention.proj.weight.shape == (192, 128)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 6)


def test_places_are_numbered_anew_after_a_cut(small):
    """Two cuts, the second with shrunk sets, equal one cut of the same units."""
    groups = list(found(small).values())
    first = {group.root: [0] for group in groups}
    second = {group.root: [0] for group in groups}  # unit 1 of the dense network
    twice, once = Small().eval(), Small().eval()
    twice.load_state_dict(small.state_dict())
    once.load_state_dict(small.state_dict())
    remove_units(twice, groups, first)
    remove_units(twice, shrink_groups(groups, first), second)
    remove_units(once, groups, {group.root: [0, 1] for group in groups})
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(twice(x), once(x))


@pytest.mark.parametrize("saliency", ["l1", "l2", "taylor", "bn-scale"])
def test_the_unit_that_does_nothing_goes_first(small, saliency):
    groups = list(found(small).values())
    group = next(g for g in groups if g.root == "inner")
    stem = next(g for g in groups if "stem" in g.layers)
    with torch.no_grad():
        small.inner.weight[5] = 0
        small.inner.bias[5] = 0
        small.back.weight[:, 5] = 0
        if saliency == "bn-scale":
            small.norm.weight[:4] = 0.001  # unit 0 of the fat set
    batches = [(torch.randn(8, 3, 8, 8), torch.tensor([0, 1, 2, 3, 4, -1, -1, 0]))]
    gradients = collect_gradients(small, batches) if saliency == "taylor" else None
    scores = unit_scores(small, groups, saliency, gradients)
    assert int(scores[group.root].argmin()) == 5
    assert all(parameter.grad is None for parameter in small.parameters())
    if saliency == "bn-scale":
        assert int(scores[stem.root].argmin()) == 0


def test_taylor_without_batches_and_weights_that_are_not_numbers_are_refused(small):
    groups = list(found(small).values())
    with pytest.raises(PreconditionError, match="taylor needs calibration batches"):
        unit_scores(small, groups, "taylor")
    with torch.no_grad():
        small.inner.weight[0] = torch.nan
    with pytest.raises(PreconditionError, match="inner: the weights are not finite"):
        unit_scores(small, groups, "l1")


def plain(root: str, units: int, **more: object) -> UnitGroup:
    return UnitGroup(root, units, (), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("units", "wanted", "step", "expected"),
    [
        (64, 32, 8, 32),
        (64, 29, 8, 32),
        (64, 3, 8, 8),
        (24, 12, 8, 16),
        (8, 4, 8, 4),
        (3, 1.5, 8, 2),
        (96, 47, 16, 48),
    ],
)
def test_counts_are_multiples(units, wanted, step, expected):
    assert rounded(plain("a", units), wanted, step) == expected


def test_heads_and_fat_units_are_counted_whole():
    assert rounded(plain("a", 3, kind="heads", width=64), 1.5, 8) == 2
    assert rounded(plain("a", 3, kind="heads", width=64), 0.2, 8) == 1
    assert rounded(plain("a", 10, width=8), 5, 8) == 5
    assert rounded(plain("a", 12, width=4), 5, 8) == 4


def test_a_ratio_that_takes_a_whole_layer_is_refused():
    with pytest.raises(
        PreconditionError, match=r"would remove all 12 channels of b; got 0.95; allowed: at most 0.91"
    ):
        require_units_left([plain("a", 64), plain("b", 12)], 0.95, "prune.ratio")
    require_units_left([plain("a", 64), plain("b", 3, kind="heads", width=64)], 0.95, "prune.ratio")


def test_the_least_scores_go_wherever_they_are():
    groups = [plain("a", 40), plain("b", 40)]
    scores = {"a": torch.linspace(0.0, 1.0, 40), "b": torch.linspace(1.1, 2.0, 40)}
    assert counts_for(groups, 0.4, round_to=1, scope="global", scores=scores) == {"a": 8, "b": 40}
    assert counts_for(groups, 0.5, round_to=1, scope="global", scores=scores) == {"a": 4, "b": 40}


def test_the_way_to_the_target_is_monotone():
    groups = [plain("a", 64)]
    steps = [between(groups, {"a": 24}, step / 4, 8)["a"] for step in range(1, 5)]
    assert steps == sorted(steps, reverse=True) and steps[-1] == 24 and steps[0] < 64


def test_a_target_between_two_roundings_is_met_by_changing_some_sets():
    groups = [plain(str(k), 16) for k in range(10)]
    tried = []

    def cost(counts):
        tried.append(counts)
        return sum(counts.values()) / 160

    counts, cost_found = search_counts(
        lambda amount: counts_for(groups, amount, round_to=8, scope="uniform", scores={}), cost, 0.75
    )
    assert cost_found == pytest.approx(0.75, abs=0.01)
    assert sorted(counts.values()) == [8] * 5 + [16] * 5
    assert len(tried) < 20


def test_an_excluded_layer_and_a_wrong_name(small):
    groups, skipped = find_unit_groups(small, EXAMPLE, exclude=["inner"])
    assert "inner" not in [group.root for group in groups]
    assert ("inner", "excluded by the recipe: inner") in skipped
    with pytest.raises(
        RecipeError, match=r"prune.exclude: matches no layer; got 'iner'; did you mean 'inner'"
    ):
        find_unit_groups(small, EXAMPLE, exclude=["iner"])


def test_masked_weights_are_refused(small):
    from edgekd.prune.apply import prune

    prune(small, "2:4")
    with pytest.raises(PreconditionError, match="masked or quantized already"):
        find_unit_groups(small, EXAMPLE)
