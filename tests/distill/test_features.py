from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from edgekd.distill.features import FeatureCapture, match_layers
from edgekd.errors import PreconditionError, RecipeError


def hooks(module: nn.Module) -> int:
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules())


class Half(nn.Module):
    def forward(self, x):
        return x / 2


def test_captures_in_the_order_of_the_names_with_gradients(nets, image):
    net = nets["staged"]()
    with FeatureCapture(net, ["stage3", "stage1", "stage1"]) as capture:
        net(image)
        deep, shallow, again = capture.take()
    assert deep.shape == (2, 16, 2, 2) and shallow.shape == (2, 4, 8, 8) and again is shallow
    assert deep.requires_grad
    torch.testing.assert_close(deep, net.stage3(net.stage2(shallow)))


def test_hooks_are_removed_even_after_an_error(nets, image):
    net = nets["staged"]()
    with pytest.raises(ZeroDivisionError), FeatureCapture(net, ["stage1"]) as capture:
        assert hooks(net) == 2
        net(image)
        raise ZeroDivisionError
    assert hooks(net) == 0 and not capture._features


def test_take_forgets(nets, image):
    net = nets["staged"]()
    with FeatureCapture(net, ["stage1"], where="objectives.squarehead.layers") as capture:
        net(image)
        capture.take()
        with pytest.raises(PreconditionError, match=r"squarehead\.layers: the forward pass did not call it"):
            capture.take()


def test_the_last_call_of_a_shared_module_wins(image):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x)).mean(dim=(2, 3))

    net = Twice()
    with FeatureCapture(net, ["conv"]) as capture:
        net(image)
        (last,) = capture.take()
    torch.testing.assert_close(last, net.conv(net.conv(image)))


def test_survives_parametrized_layers(nets, image):
    net = nets["staged"]()
    parametrize.register_parametrization(net.stage1[0].conv, "weight", Half())
    with FeatureCapture(net, ["stage1.0.conv"]) as capture:
        net(image)
        (features,) = capture.take()
    torch.testing.assert_close(features, net.stage1[0].conv(net.stage1[0].expand(image)))
    with pytest.raises(RecipeError, match="no module of that name"):
        FeatureCapture(net, ["stage1.0.conv.parametrizations.weight.0"])


def test_a_copy_made_meanwhile_is_not_captured(nets, image):
    net = nets["staged"]()
    with FeatureCapture(net, ["stage1"]) as capture:
        net(image)
        average = copy.deepcopy(net)  # while a non-leaf tensor is held
        average(torch.zeros_like(image))
        (features,) = capture.take()
    torch.testing.assert_close(features, net.stage1(image))


def test_channels_last_features_come_out_channels_first(nets, image):
    net = nets["channels_last"]()
    with FeatureCapture(net, ["mix"]) as capture:
        net(image)
        (features,) = capture.take()
    assert features.shape == (2, 6, 4, 4)
    torch.testing.assert_close(features.permute(0, 2, 3, 1), net.mix(net.patch(image).permute(0, 2, 3, 1)))


def test_the_first_tensor_of_a_tuple_counts(image):
    class Pairing(nn.Module):
        def forward(self, x):
            return x + 1, x

    net = nn.Sequential(Pairing())
    with FeatureCapture(net, ["0"]) as capture:
        net(image)
        (features,) = capture.take()
    torch.testing.assert_close(features, image + 1)


def test_works_inside_distributed_data_parallel(nets, image, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = nets["staged"]()
        prepared = nn.parallel.DistributedDataParallel(net)
        with FeatureCapture(net, ["stage2"]) as capture:
            prepared(image)
            (features,) = capture.take()
        features.sum().backward()
        assert net.stage1[0].conv.weight.grad is not None
    finally:
        torch.distributed.destroy_process_group()


def test_works_after_accelerate_prepared_it(nets, image):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    net = nets["staged"]()
    AcceleratorState._reset_state(
        reset_partial_state=True
    )  # one precision per process: other tests have theirs
    try:
        prepared = Accelerator(cpu=True, mixed_precision="bf16").prepare(net)
        with FeatureCapture(net, ["stage2"]) as capture:
            prepared(image)
            (features,) = capture.take()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert features.dtype == torch.bfloat16


def test_equal_architectures_pair_equal_names_deepest_first(nets, image):
    pairs = match_layers(nets["staged"](), nets["staged"](), image)
    assert pairs == [("stage3", "stage3"), ("stage2", "stage2"), ("stage1", "stage1")]


def test_a_masked_student_still_pairs_by_name(nets, image):
    student = nets["staged"]()
    for each in list(student.modules()):
        if isinstance(each, nn.Conv2d):
            parametrize.register_parametrization(each, "weight", Half())
    pairs = match_layers(student, nets["staged"](blocks=2, width=8), image)
    assert pairs == [("stage3", "stage3"), ("stage2", "stage2"), ("stage1", "stage1")]


def test_other_architectures_pair_the_ends_of_their_stages_by_depth(nets, image):
    student = nn.Sequential(
        nn.Conv2d(1, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 5),
    )  # fmt: skip
    assert match_layers(student, nets["staged"](prefix="s"), image) == [("4", "s3"), ("2", "s2")]


def test_token_networks_pair_their_blocks_evenly(nets, image):
    pairs = match_layers(nets["tokens"](3), nets["tokens"](6), image)
    assert pairs == [("blocks.2", "blocks.5"), ("blocks.1", "blocks.3"), ("blocks.0", "blocks.1")]
    assert match_layers(nets["tokens"](2), nets["tokens"](2), image) == [
        ("blocks.1", "blocks.1"),
        ("blocks.0", "blocks.0"),
    ]


def test_matching_leaves_no_trace(nets, image):
    student, teacher = nets["staged"](), nets["staged"]()
    student.train()
    student.stage1.eval()
    before = copy.deepcopy(student.state_dict())
    match_layers(student, teacher, image)
    assert student.training and not student.stage1.training and student.stage2.training
    assert hooks(student) == hooks(teacher) == 0
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("stage9", "stage3"), "the student calls no module of that name; got 'stage9'; did you mean 'stage"),
        (("stage3", "zzz"), "the teacher calls no module of that name; got 'zzz'; known: stage1, stage2, "),
    ],
)
def test_explicit_pairs_are_checked(nets, image, pair, message):
    student, teacher = nets["staged"](), nets["staged"]()
    assert match_layers(student, teacher, image, [("stage2", "stage1")]) == [("stage2", "stage1")]
    with pytest.raises(RecipeError) as caught:
        match_layers(student, teacher, image, [pair])
    assert str(caught.value).startswith(f"layers: {message}")


def test_a_network_without_positions_is_refused(nets, image):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(256, 5))
    with pytest.raises(RecipeError, match="the student has no module whose output has positions"):
        match_layers(flat, nets["staged"](), image)


def test_published_architectures_pair_at_their_stages():
    from edgekd.models.torchvision_shim import ensure_torchvision_ops

    ensure_torchvision_ops()
    import timm

    image = torch.randn(1, 3, 64, 64)
    student = timm.create_model("mobilenetv2_100", num_classes=5)
    teacher = timm.create_model("resnet10t", num_classes=5)
    assert match_layers(student, teacher, image)[:4] == [
        ("bn2", "layer4"),
        ("blocks.4", "layer3"),
        ("blocks.2", "layer2"),
        ("blocks.1", "layer1"),
    ]
    tokens = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=5)
    assert [ours for ours, _ in match_layers(tokens, tokens, image)] == ["blocks.2", "blocks.1", "blocks.0"]
