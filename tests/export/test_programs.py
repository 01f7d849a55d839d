"""The network for ExecuTorch and LiteRT: really converted where those are installed, refused in one line elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import ExportError, MissingDependencyError, ParityError, UserInputError
from edgekd.export import programs
from edgekd.export.programs import export_program

CONVERTERS = {".pte": "executorch", ".tflite": "litert_torch"}
EXAMPLE = torch.rand(2, 3, 8, 8)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    for _ in range(3):  # a batch norm that does something
        net(torch.randn(16, 3, 8, 8) * 2 + 1)
    return net.eval()


@pytest.mark.parametrize("suffix", CONVERTERS)
def test_a_real_file_answers_like_the_network(net: nn.Module, tmp_path: Path, suffix: str) -> None:
    if importlib.util.find_spec(CONVERTERS[suffix]) is None:
        pytest.skip(f"{CONVERTERS[suffix]} is not installed")
    file = export_program(net, EXAMPLE, tmp_path / f"net{suffix}")
    assert file.max_abs_diff < 1e-4
    assert file.size_bytes == file.path.stat().st_size
    assert list(tmp_path.iterdir()) == [file.path]
    from edgekd.profiles import measure

    report = measure({"net": file.path}, rounds=1, runs=2).reports["net"]
    assert (report.runtime, list(report.inputs.values())) == (file.runtime, [[1, 3, 8, 8]])


@pytest.mark.parametrize("suffix", CONVERTERS)
def test_a_converter_that_is_not_installed(net: nn.Module, tmp_path: Path, suffix: str) -> None:
    if importlib.util.find_spec(CONVERTERS[suffix]) is not None:
        pytest.skip(f"{CONVERTERS[suffix]} is installed")
    with pytest.raises(MissingDependencyError, match=r"cannot be imported.*run: pip install "):
        export_program(net, EXAMPLE, tmp_path / f"net{suffix}")
    assert not list(tmp_path.iterdir())


def test_another_kind_of_file(net: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"no such kind of file; got '\.mnn'; allowed: \.pte, \.tflite"):
        export_program(net, EXAMPLE, tmp_path / "net.mnn")


def written(seen: list[nn.Module]):
    """A converter that keeps the module and writes anything."""

    def write(module: nn.Module, sample: Tensor, path: Path) -> None:
        seen.append(module)
        path.write_bytes(b"program")

    return write


def test_what_is_converted_is_folded_and_checked(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[nn.Module] = []
    monkeypatch.setattr(programs, "_write_pte", written(seen))
    monkeypatch.setattr(programs, "_run_pte", lambda path, sample: net(sample).detach())
    file = export_program(net, EXAMPLE, tmp_path / "net.pte")
    assert (file.runtime, file.size_bytes) == ("executorch", 7)
    # Folded in a copy: the network itself keeps its batch norm.
    assert not any(isinstance(part, nn.BatchNorm2d) for part in seen[0].modules())
    assert any(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    monkeypatch.setattr(programs, "_run_pte", lambda path, sample: net(sample).detach() + 0.1)
    with pytest.raises(ParityError, match=r"executorch answers otherwise than the network; got 0\.1"):
        export_program(net, EXAMPLE, tmp_path / "other.pte")
    assert not (tmp_path / "other.pte").exists()


def test_a_network_that_cannot_be_converted(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise RuntimeError("unsupported\noperator")

    monkeypatch.setattr(programs, "_write_tflite", fail)
    with pytest.raises(ExportError, match="cannot be converted for litert; got 'unsupported operator'"):
        export_program(net, EXAMPLE, tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())
