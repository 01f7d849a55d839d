"""Execution providers of ONNX Runtime: asked for, lacking, fallen back from, and what they leave to the CPU."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.errors import MissingDependencyError, UserInputError
from edgekd.profiles import measure, open_session
from edgekd.profiles.runtimes.ort import _elsewhere
from edgekd.profiles.runtimes.providers import check_provider, check_used, provider_arguments

MakeOnnx = Callable[..., Path]


def test_a_provider_that_the_build_lacks_is_one_line_with_what_it_has(make_onnx: MakeOnnx) -> None:
    with pytest.raises(
        MissingDependencyError,
        match=r"provider 'cuda': the installed ONNX Runtime .* lacks it; allowed: .*cpu",
    ) as caught:
        measure({"a": make_onnx()}, provider="cuda")
    assert "onnxruntime-gpu" in str(caught.value)
    with pytest.raises(UserInputError, match="provider: unknown; got 'cude'; did you mean 'cuda'"):
        open_session(make_onnx(), provider="cude")
    with pytest.raises(UserInputError, match="provider 'cuda': belongs to onnxruntime; a runs in openvino"):
        measure({"a": make_onnx()}, provider="cuda", runtime="openvino")


def test_providers_of_another_build() -> None:
    ort = types.SimpleNamespace(
        __version__="1.99", get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    check_provider("cuda", ort)
    with pytest.raises(MissingDependencyError, match="allowed: cpu, cuda"):
        check_provider("tensorrt", ort)


def test_falling_back_to_the_cpu_is_an_error() -> None:
    check_used("cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(
        MissingDependencyError, match="provider 'cuda': ONNX Runtime could not load it and fell back"
    ):
        check_used("cuda", ["CPUExecutionProvider"])


def test_provider_arguments() -> None:
    assert provider_arguments("cpu", threads=3) == ["CPUExecutionProvider"]
    assert provider_arguments("xnnpack", threads=3) == [
        ("XnnpackExecutionProvider", {"intra_op_num_threads": "3"}), "CPUExecutionProvider",
    ]  # fmt: skip


def test_nodes_that_the_provider_left_to_the_cpu_are_noted() -> None:
    def part(name: str, count: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(ep_name=name, get_nodes=lambda: [None] * count)

    parts = [
        part("CUDAExecutionProvider", 50),
        part("CPUExecutionProvider", 3),
        part("CPUExecutionProvider", 4),
    ]
    session = types.SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)
    assert _elsewhere(session, "cuda") == ["7 of 57 nodes do not run on cuda but on the cpu"]
    del parts[1:]
    assert _elsewhere(session, "cuda") == []
    assert _elsewhere(types.SimpleNamespace(), "cuda") == []
