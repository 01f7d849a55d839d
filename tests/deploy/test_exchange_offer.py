"""What other activations would give is offered with how it is known, and never done."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import edgekd.deploy_exchange as offers
from edgekd.data.open import open_data
from edgekd.device import DeviceSpec, load_device
from edgekd.export.write import export_quantized
from edgekd.preprocess import Preprocess
from edgekd.prune.apply import prune
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import get_scheme
from edgekd.recipe import DataRecipe, Recipe
from edgekd.recipe_file import parse_recipe
from edgekd.report.exchange import ExchangeFacts, exchange_sentence

PREPROCESS = Preprocess(height=8, width=8, channels=1, mean=(0.3,), std=(0.3,))
X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.stem, self.act, self.last = nn.Conv2d(1, 8, 3, padding=1), act(), nn.Conv2d(8, 8, 3, padding=1)
        self.silu, self.head = nn.SiLU() if act is nn.GELU else nn.ReLU(), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.silu(self.last(self.act(self.stem(x)))).mean((2, 3)))


def recipe(*stages: dict[str, Any]) -> Recipe:
    document = {
        "teacher": "timm:resnet18@random",
        "data": {"path": "builtin:digits"},
        "stages": list(stages or ({"distill": {}}, {"quantize": {}})),
    }
    return parse_recipe(document, where="r.yaml")


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The entry after an offer: the clock says how long each file takes."""
    data = open_data(DataRecipe(path="builtin:digits", max_train=64), base=tmp_path)

    def offer(
        gain: tuple[float, float, float] = (1.6, 1.5, 1.7),
        *,
        act: type[nn.Module] = nn.GELU,
        spec: DeviceSpec | None = None,
        p50_ms: float = 0.001,
        wanted: Recipe | None = None,
    ) -> dict[str, Any]:
        torch.manual_seed(0)
        net = Net(act).eval()
        prune(net, "2:4")
        model = prepare_qat(net, X, get_scheme("u8s8"))
        model.calibrate([X])
        model.set_phase("frozen")
        before = copy.deepcopy(model.state_dict())
        path = tmp_path / "model.onnx"
        metadata = {"preprocess": PREPROCESS.model_dump_json()}
        export_quantized(model.eval(), X, path, opset=17, metadata=metadata)

        def clock(files: dict[str, Path], **asked: Any) -> Any:
            kinds = [node.op_type for node in onnx.load(str(files["exchanged"])).graph.node]
            assert "Erf" not in kinds and "Gelu" not in kinds and "Sigmoid" not in kinds
            assert "QuantizeLinear" in kinds or "QLinearConv" in kinds
            stated = [onnx.load(str(file)).metadata_props for file in files.values()]
            assert all(any(entry.key == "preprocess" for entry in props) for props in stated), (
                "measured on other inputs"
            )
            reports = {"deployed": SimpleNamespace(p50_ms=gain[0]), "exchanged": SimpleNamespace(p50_ms=1.0)}
            return SimpleNamespace(
                reports=reports, ratio=lambda a, b: SimpleNamespace(value=gain[0], low=gain[1], high=gain[2])
            )

        monkeypatch.setattr(offers, "measure", clock)
        entry: dict[str, Any] = {"latency": [{"p50_ms": p50_ms, "threads": 1}], "warnings": [], "opset": 17}
        offers.offer_exchange(
            entry, path, model, X, recipe=wanted or recipe(), spec=spec or load_device("cpu"), data=data,
            preprocess=PREPROCESS, metadata=metadata, progress=None,
        )  # fmt: skip
        assert isinstance(model, QuantizedModel) and isinstance(model.model.act, act), "nothing is exchanged"
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert sorted(file.name for file in tmp_path.glob("*")) == ["model.onnx"]
        return entry

    return offer


def test_a_measured_gain_is_offered_with_its_setting(offered: Callable[..., dict[str, Any]]) -> None:
    found = ExchangeFacts.model_validate(offered()["exchange"])
    assert found.kind == "measured" and found.activations == {"gelu": 1, "silu": 1}
    assert (found.deployed_ms, found.exchanged_ms, found.speedup, found.interval) == (
        1.6,
        1.0,
        1.6,
        (1.5, 1.7),
    )
    assert found.setting == "--set distill.substitute=relu"
    told = exchange_sentence(found)
    assert "GELU (1) and SiLU (1)" in told and "1.60× as fast" in told and "measured, 1 thread" in told
    assert "not known" in told and told.endswith("--set distill.substitute=relu")


def test_a_small_or_doubtful_gain_is_not(offered: Callable[..., dict[str, Any]]) -> None:
    assert "exchange" not in offered((1.05, 1.04, 1.06))
    assert "exchange" not in offered((1.6, 1.02, 2.0)), "the interval reaches noise"


def test_nothing_is_exported_where_prices_promise_little(
    offered: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **more: Any) -> None:
        raise AssertionError("exported")

    # 1,024 values at half a nanosecond, and a whole millisecond; nothing to exchange; another runtime.
    for more in ({"p50_ms": 1.0}, {"act": nn.ReLU}, {"spec": load_device("jetson-orin-nano")}):
        with monkeypatch.context() as patch:
            patch.setattr(offers, "_times", never)
            entry = offered(**more)
        assert "exchange" not in entry and entry["warnings"] == []


def test_for_a_board_it_is_estimated_and_says_so(offered: Callable[..., dict[str, Any]]) -> None:
    entry = offered(spec=load_device("raspberry-pi-4b"))
    if "exchange" in entry:  # three small layers: the overhead may hide it
        assert entry["exchange"]["kind"] == "estimated"
    facts = {"activations": {"gelu": 12}, "instead": "relu", "kind": "estimated", "deployed_ms": 64.1,
             "exchanged_ms": 48.2, "speedup": 1.33, "threads": 4, "setting": "s"}  # fmt: skip
    told = exchange_sentence(ExchangeFacts.model_validate(facts))
    assert "~48.2 ms and not ~64.1 ms" in told and "estimated, 4 threads" in told and "rounds" not in told


def test_what_cannot_be_exported_is_a_warning(
    offered: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **more: Any) -> None:
        from edgekd.errors import ExportError

        raise ExportError("no such kernel")

    monkeypatch.setattr(offers, "_times", fails)
    entry = offered()
    assert "exchange" not in entry and "no such kernel" in entry["warnings"][0]


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([{"distill": {}}, {"quantize": {}}], "--set distill.substitute.gelu=relu"),
        ([{"quantize": {}}], "--set quantize.substitute.gelu=relu"),
        ([{"distill": {"substitute": {"silu": "hardswish"}}}, {"quantize": {}}], "--set distill.substitute=relu"),
        ([{"distill": {}}, {"quantize": {"method": "ptq"}}], "--set distill.substitute.gelu=relu"),
        ([{"quantize": {"method": "ptq"}}], "same-fast"),
    ],
)  # fmt: skip
def test_the_setting_is_one_that_trains(stages: list[dict[str, Any]], words: str) -> None:
    assert words in offers.setting(recipe(*stages), ["gelu"])
