"""Which of several files of one network goes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekd.device import load_device
from edgekd.errors import PreconditionError
from edgekd.export.coverage import check_coverage
from edgekd.export.write import ExportedFile, export_quantized
from edgekd.mixtures import BLOCKS as MIXED
from edgekd.profiles import Measurement
from edgekd.profiles.estimation.api import estimate
from edgekd.profiles.session import open_session, run_batches
from edgekd.profiles.statistics import ratio
from edgekd.quant.partial import float_twin, leave_in_float, quantized_layers
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import get_scheme
from edgekd.quant.settle import settle_scales
from edgekd.recipe import ProfileRecipe
from edgekd.variant_times import Here, OnBoard, Times, clock_for
from edgekd.variants import FP32, INT8, Variant, choose, explain, variant_rows, write_variants


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)) + x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(torch.relu(self.stem(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def trained() -> QuantizedModel:
    torch.manual_seed(0)
    model = prepare_qat(Net().eval(), torch.zeros(2, 3, 16, 16), get_scheme("u8s8"))
    model.calibrate([torch.randn(32, 3, 16, 16)])
    model.set_phase("frozen")
    return model.eval()


def answers(path: Path, x: torch.Tensor) -> np.ndarray:
    return run_batches(open_session(path), x.numpy())


def test_layers_left_in_float_run_in_float_and_the_rest_in_integers(
    trained: QuantizedModel, tmp_path: Path
) -> None:
    x = torch.randn(64, 3, 16, 16)
    before = trained(x).detach()
    part = leave_in_float(trained, {"blocks.1.conv": "measured"}, x[:2], blocks=["blocks.1"])
    settle_scales(part, x[:2])
    export_quantized(part, x[:2], tmp_path / "m.onnx", opset=17)
    report = check_coverage(tmp_path / "m.onnx")
    assert (report.integer_ops, report.float_ops) == (4, 1)
    assert report.float_nodes[0].startswith("blocks.1")
    stored = {
        tensor.name: tensor.data_type for tensor in onnx.load(str(tmp_path / "m.onnx")).graph.initializer
    }
    assert any(
        name.startswith("blocks.1.conv") and kind == onnx.TensorProto.FLOAT for name, kind in stored.items()
    )
    with torch.no_grad():
        same = (part(x).argmax(1).numpy() == answers(tmp_path / "m.onnx", x).argmax(1)).mean()
    assert same == 1.0
    assert part.float_layers == {"blocks.1.conv": "measured"} and trained.float_layers == {}
    assert torch.equal(trained(x).detach(), before), "the trained model is not touched"
    assert "blocks.1.conv" in quantized_layers(trained) and "blocks.1.conv" not in quantized_layers(part)


def test_a_layer_that_is_not_quantized_is_refused_by_name(trained: QuantizedModel) -> None:
    with pytest.raises(PreconditionError, match=r"is no quantized layer.*blocks\.9"):
        leave_in_float(trained, {"blocks.9": ""}, torch.zeros(2, 3, 16, 16))


def test_the_float_twin_has_the_grid_weights_and_no_rounding_between(trained: QuantizedModel) -> None:
    twin = float_twin(trained)
    x = torch.randn(8, 3, 16, 16)
    assert torch.equal(twin.stem.weight, trained.model.stem.weight)  # type: ignore[union-attr]
    assert 0 < (twin(x) - trained(x)).abs().max() < 0.2


def variant(name: str, tmp_path: Path, float_layers: dict[str, str] | None = None) -> Variant:
    return Variant(name, nn.Identity(), ExportedFile(tmp_path / name, 17, "", 10), float_layers or {})


def measured(**rounds: list[float]) -> Measurement:
    reports = {
        name: SimpleNamespace(rounds_ms=[[v] * 3 for v in values], p50_ms=values[0])
        for name, values in rounds.items()
    }
    return Measurement(cast("Any", reports), tuple(rounds))


def test_integers_stay_unless_another_is_faster_beyond_the_noise(tmp_path: Path) -> None:
    three = [variant(name, tmp_path) for name in (INT8, MIXED, FP32)]
    none: dict[str, float | None] = dict.fromkeys((INT8, MIXED, FP32))
    steady, noisy = [2.0, 2.0, 2.0, 2.0, 2.0], [1.9, 2.3, 1.9, 2.2, 1.9]
    slow = [3.0, 3.1, 3.0, 3.0, 3.0]
    assert choose(three, measured(int8=steady, mixed=noisy, fp32=slow), none).name == INT8
    assert choose(three, measured(int8=slow, mixed=steady, fp32=slow), none).name == MIXED
    assert choose(three, measured(int8=slow, mixed=slow, fp32=steady), none).name == FP32
    assert choose(three, measured(int8=slow, mixed=steady, fp32=[1.0] * 5), none).name == FP32


def test_float_goes_out_where_integers_take_longer_in_the_median(tmp_path: Path) -> None:
    two = [variant(name, tmp_path) for name in (INT8, FP32)]
    none: dict[str, float | None] = dict.fromkeys((INT8, FP32))
    noisy = [1.8, 2.3, 1.8, 1.8, 2.3]  # the median round: a tenth below 2
    assert choose(two, measured(int8=[2.0] * 5, fp32=noisy), none).name == FP32
    level = [1.97, 2.1, 1.97, 1.97, 2.1]  # as fast as int8, within what nobody notices: the smaller one
    assert choose(two, measured(int8=[2.0] * 5, fp32=level), none).name == INT8


def test_for_a_board_files_are_estimated_and_a_mix_needs_a_tenth(
    trained: QuantizedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgekd.variant_times as room

    example = torch.zeros(2, 3, 16, 16)
    file = export_quantized(trained, example, tmp_path / "m.onnx", opset=17, kernels="arm")
    board = OnBoard(load_device("raspberry-pi-4b"), threads=1)
    costs = board.operators(file.path)
    assert {"stem", "blocks.0.conv", "head"} <= {cost.node.split("/")[0] for cost in costs}
    whole_us = 1000 * estimate(file.path, "raspberry-pi-4b", threads=1).p50_ms
    assert 0.5 * whole_us < sum(cost.mean_us for cost in costs) <= whole_us, (
        "an inference has a cost of its own"
    )
    milliseconds = {"int8": 1.0, "mixed": 0.95, "fp32": 0.98}
    real = estimate(file.path, "raspberry-pi-4b")
    monkeypatch.setattr(
        room, "estimate", lambda path, spec, threads: replace(real, p50_ms=milliseconds[path.stem])
    )
    three = [variant(name, tmp_path) for name in (INT8, MIXED, FP32)]
    none: dict[str, float | None] = dict.fromkeys((INT8, MIXED, FP32))
    files = {name: Path(f"{name}.onnx") for name in (INT8, MIXED, FP32)}
    assert choose(three, board.times(files), none).name == INT8, "five hundredths are no more than a guess"
    milliseconds["mixed"] = 0.9
    times = board.times(files)
    chosen = choose(three, times, none)
    rows = variant_rows(three, times, none, chosen)
    assert chosen.name == MIXED and {row["kind"] for row in rows} == {"estimated"}
    assert "by estimate (int8 1.00 ms, mixed 0.90 ms" in explain(chosen, rows)
    milliseconds.update(mixed=1.2, fp32=0.96)
    assert choose(three, board.times(files), none).name == FP32, "integers for nothing"


def test_a_gpu_and_a_file_that_cannot_be_priced_have_no_clock(onnx_file: Path, tmp_path: Path) -> None:
    settings = ProfileRecipe()
    pi, orin = load_device("raspberry-pi-4b"), load_device("jetson-orin-nano")
    assert clock_for(pi, settings, onnx_file, None) == OnBoard(pi)
    assert clock_for(pi, ProfileRecipe(threads=[2]), onnx_file, None) == OnBoard(pi, 2)
    assert clock_for(orin, settings, onnx_file, None) is None
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    assert clock_for(pi, settings, tmp_path / "broken.onnx", None) is None


def test_speed_does_not_buy_accuracy(tmp_path: Path) -> None:
    three = [variant(name, tmp_path) for name in (INT8, MIXED, FP32)]
    times = measured(int8=[3.0] * 5, mixed=[2.0] * 5, fp32=[1.0] * 5)
    assert choose(three, times, {INT8: 0.9, MIXED: 0.896, FP32: 0.8}).name == MIXED
    rows = variant_rows(three, Times.measured(times), {INT8: 0.9, MIXED: 0.896, FP32: 0.8}, three[1])
    assert [row["deployed"] for row in rows] == [False, True, False]
    assert rows[0]["speedup_vs_fp32"] == pytest.approx(1 / 3)


def test_blocks_that_lose_go_back_to_float(
    trained: QuantizedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgekd.mixtures as room
    from edgekd.blocks import BlockCost

    slow = [BlockCost(f"blocks.{k}", 50.0, 20.0) for k in (0, 2)]
    monkeypatch.setattr(room, "compare_blocks", lambda *args, **kwargs: slow)
    example = torch.zeros(2, 3, 16, 16)
    file = export_quantized(trained, example, tmp_path / "m.onnx", opset=17)
    found = write_variants(
        Variant(INT8, trained, file),
        example,
        tmp_path,
        opset=17,
        metadata={"a": "b"},
        clock=Here(ProfileRecipe()),
    )
    assert [each.name for each in found] == [INT8, MIXED, FP32]
    mixed = check_coverage(found[1].file.path)
    assert (mixed.integer_ops, mixed.float_ops) == (3, 2)
    assert "50 us in integers, 20 us in float" in found[1].float_layers["blocks.0.conv"]
    assert "2 layers are deployed in float" in explain(found[1], [])
    x = torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        for each in found:
            expected = each.model(x).numpy().argmax(1)
            assert (answers(each.file.path, x).argmax(1) == expected).all(), each.name


def test_ratios_read_from_rounds() -> None:
    assert ratio([[2.0]] * 5, [[1.0]] * 5).value == 2.0
    assert replace(ExportedFile(Path("a"), 17, "", 1), path=Path("b")).path == Path("b")
