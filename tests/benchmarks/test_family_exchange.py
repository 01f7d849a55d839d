"""The whole list with exchanged activations: what is exchanged, and the mean beside the own one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.family_exchange import asked, beside_own, exchanged

X = torch.zeros(2, 3, 4, 4)


def test_one_name_or_pairs() -> None:
    assert asked(["relu"]) == {"silu": "relu", "gelu": "relu", "hardswish": "relu"}
    assert asked(["relu", "gelu=quick-gelu"]) == {"silu": "relu", "gelu": "quick-gelu", "hardswish": "relu"}


def test_what_a_network_lacks_is_no_error() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardswish(), nn.Conv2d(4, 4, 1), nn.ReLU())
    assert exchanged(net, X, ["relu"]) == {"hardswish -> relu": 1} and isinstance(net[1], nn.ReLU)
    assert exchanged(net, X, ["silu=relu"]) == {}


def test_networks_with_nothing_to_exchange_count_as_they_are(tmp_path: Path) -> None:
    def row(speedup: float, **more: object) -> dict[str, object]:
        return {"deployed": {"speedup": speedup}, **more}

    stored = {"conditions": {"date": "2026-01-01"}, "models": {"a": row(1.0), "b": row(4.0), "c": row(9.0)}}
    (tmp_path / "own.json").write_text(json.dumps(stored))
    rows = {
        "a": row(2.25, substituted={"gelu -> relu": 3}),
        "b": row(4.0, substituted={}),
        "d": {"error": "x"},
    }
    found = beside_own(rows, tmp_path, "own")
    assert found is not None
    assert (found["models"], found["nothing to exchange"]) == (2, 1)
    assert found["own activations"] == pytest.approx(2.0) and found["exchanged"] == pytest.approx(3.0)
    assert beside_own(rows, tmp_path, "missing") is None
