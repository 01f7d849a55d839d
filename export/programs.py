"""The same float network for other runtimes: ``.pte`` for ExecuTorch (XNNPACK), ``.tflite`` for LiteRT.

They exist to be measured beside the ONNX file, so that a user sees which runtime is fastest for this network.
Batch norm is folded and parametrizations are baked as for ONNX; what was written is loaded back and must answer
as the network does. The batch is fixed at one: both converters specialise shapes.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.artifact import atomic_path, sha256_file
from edgekd.errors import ExportError, MissingDependencyError, ParityError, UserInputError, fault
from edgekd.models.bake import bake_parametrizations
from edgekd.models.fold import fold_batch_norms

# Float kernels of two libraries add in another order: relative to the largest answer.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class ProgramFile:
    """A file on disk that answered like the network.

    Attributes:
        runtime: that reads it, as ``edgekd profile --runtime`` calls it.
        max_abs_diff: to the network's outputs, on one random sample.
    """

    path: Path
    runtime: str
    sha256: str
    size_bytes: int
    max_abs_diff: float


def export_program(module: nn.Module, example: Tensor, path: Path) -> ProgramFile:
    """Write ``module`` in float32 for the runtime that the suffix names.

    Args:
        example: ``(batch, ...)``; its first sample is what the file takes.
        path: ends in ``.pte`` or ``.tflite``.

    Raises:
        UserInputError: another suffix.
        MissingDependencyError: the converter is not installed.
        ExportError: the converter cannot take the network; ParityError: the file answers otherwise. Nothing is
            left at ``path``.
    """
    writers = {
        ".pte": ("executorch", _write_pte, _run_pte),
        ".tflite": ("litert", _write_tflite, _run_tflite),
    }
    if path.suffix not in writers:
        raise UserInputError(
            fault(str(path), "no such kind of file", got=path.suffix, allowed=", ".join(writers))
        )
    runtime, write, run = writers[path.suffix]
    plain = copy.deepcopy(module).cpu().eval()
    fold_batch_norms(plain, example.cpu())
    bake_parametrizations(plain)
    sample = torch.rand(example[:1].shape, generator=torch.Generator().manual_seed(0))
    if not example.is_floating_point():
        sample = example[:1].cpu()
    with atomic_path(path) as temporary, redirect_stdout(sys.stderr):
        _convert(write, plain, sample, temporary, path, runtime)
        with torch.no_grad():
            expected = plain(sample).numpy()
        answer = np.asarray(run(temporary, sample))
        difference = float(np.abs(answer.reshape(expected.shape) - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ParityError(
                fault(str(path), f"{runtime} answers otherwise than the network", got=difference)
            )
    return ProgramFile(path, runtime, sha256_file(path), path.stat().st_size, difference)


def _convert(
    write: Callable[[nn.Module, Tensor, Path], None],
    plain: nn.Module,
    sample: Tensor,
    temporary: Path,
    path: Path,
    runtime: str,
) -> None:
    try:
        write(plain, sample, temporary)
    except MissingDependencyError:
        raise
    except Exception as error:  # each converter has exceptions of its own
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise ExportError(fault(str(path), f"cannot be converted for {runtime}", got=text)) from error


def _write_pte(module: nn.Module, sample: Tensor, path: Path) -> None:
    partition = _needed("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
    lower = _needed("executorch.exir", "executorch").to_edge_transform_and_lower
    program = lower(torch.export.export(module, (sample,)), partitioner=[partition.XnnpackPartitioner()])
    path.write_bytes(program.to_executorch().buffer)


def _run_pte(path: Path, sample: Tensor) -> Any:
    # A method reads from its program, which must outlive it.
    program = _needed("executorch.runtime", "executorch").Runtime.get().load_program(str(path))
    return program.load_method("forward").execute([sample])[0]


def _write_tflite(module: nn.Module, sample: Tensor, path: Path) -> None:
    converter = _needed("litert_torch", "litert-torch")
    named = path.with_name(path.name + ".tflite")  # the converter insists on the suffix
    try:
        converter.convert(module, (sample,)).export(str(named))
        named.replace(path)
    finally:
        named.unlink(missing_ok=True)


def _run_tflite(path: Path, sample: Tensor) -> Any:
    interpreter = _needed("ai_edge_litert.interpreter", "ai-edge-litert").Interpreter(
        model_content=path.read_bytes()
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample.numpy())
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def _needed(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        fix = f"run: pip install {package}"
        raise MissingDependencyError(fault(module, "cannot be imported", got=str(error), fix=fix)) from None
