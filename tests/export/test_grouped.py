"""Narrow groups of a convolution: merged, padded or written dense, whichever costs least. The function stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.export.grouped import holds_groups
from edgekd.export.sparsity import check_sparsity
from edgekd.export.weights import load_onnx, stored_weights
from edgekd.export.write import export_quantized
from edgekd.profiles.session import open_session
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import SCHEMES


class Net(nn.Module):
    """A grouped convolution between two 1x1 ones, or read pixel by pixel, which fixes its channels."""

    def __init__(self, channels: int, groups: int, *, fixed: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 1)
        self.grouped = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.last = nn.Flatten() if fixed else nn.Conv2d(channels, 12, 1)
        self.head = nn.Linear(49 * channels if fixed else 12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(torch.relu(self.grouped(torch.relu(self.stem(x)))))
        return self.head(x if x.ndim == 2 else x.mean((2, 3)))


@pytest.mark.parametrize(
    ("net", "group", "shape"),
    [
        ((24, 3), 1, (24, 24)),  # its few products cost less than copies
        ((368, 46), 8, (384, 48)),  # six make one, two are padding
        ((152, 19), 5, (160, 32)),  # a prime number of groups, so a padded one
        ((256, 4), 4, (256, 64)),  # wide enough as they are
        ((40, 4), 1, (40, 40)),  # groups of ten
    ],
)
@torch.no_grad()
def test_groups_become_what_costs_least(
    net: tuple[int, int], group: int, shape: tuple[int, int], tmp_path: Path
) -> None:
    weight, _ = written(Net(*net), tmp_path)
    assert (weight.group, weight.values.shape[:2]) == (group, shape)


@pytest.mark.parametrize(("net", "group"), [((368, 46), 23), ((152, 19), 1)])
@torch.no_grad()
def test_channels_that_cannot_be_padded_are_split_evenly(
    net: tuple[int, int], group: int, tmp_path: Path
) -> None:
    weight, _ = written(Net(*net, fixed=True), tmp_path)
    assert (weight.group, weight.values.shape[0]) == (group, net[0]), (
        "padding one side would tear groups apart"
    )


def test_zeros_between_groups_are_no_pattern(tmp_path: Path) -> None:
    for net in ((24, 3), (368, 46)):
        _, path = written(Net(*net), tmp_path)
        assert "grouped: grouped or depthwise convolution" in check_sparsity(path, "2:4").skipped


@torch.no_grad()
def written(net: Net, folder: Path):  # type: ignore[no-untyped-def]
    """The grouped weight as it lies in the x86 file, which answers to the bit as the Arm file, left as it is."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 7, 7)
    model = prepare_qat(net.eval(), x, SCHEMES["u8s8"], style="full")
    model.calibrate([x])
    model.set_phase("frozen")
    answers = []
    for kernels in ("arm", "x86"):
        path = export_quantized(model.eval(), x, folder / f"{kernels}.onnx", opset=17, kernels=kernels).path  # type: ignore[arg-type]
        answers.append(open_session(path).run(None, {"input": x.numpy()})[0])
        weight = next(w for w in stored_weights(load_onnx(path)) if w.layer == "grouped")
        if kernels == "arm":
            assert weight.group == net.grouped.groups
    np.testing.assert_array_equal(*answers)
    assert np.ptp(answers[0]) > 0
    return weight, path


def test_a_dense_weight_holds_no_groups() -> None:
    random = np.random.default_rng(0)
    weight = random.integers(1, 9, (8, 8, 3, 3))
    assert not holds_groups(weight)
    weight[:4, 4:] = weight[4:, :4] = 0
    assert holds_groups(weight)
    weight[0, 7] = 1
    assert not holds_groups(weight)
