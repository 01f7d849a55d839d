"""A torch module to an ONNX file: the exporter is torch's, the guarantees are checked here.

torch's TorchScript-based exporter is used although it is deprecated: it gives the opset that was asked
for (the newer one silently writes 18 for less), keeps global average pooling in one node and writes
fake-quant as QuantizeLinear / DequantizeLinear. The opset is read back from the file all the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from edgekd.errors import ExportError, fault
from edgekd.models.plain_attention import without_fast_path

INPUT_NAME, TEXT_INPUT_NAME = "input", "input_ids"
OUTPUT_NAME = "logits"

# Up to the newest opset of torch's TorchScript exporter; per-channel Q/DQ exists since 13.
OPSET_MIN_INT8, OPSET_MAX = 13, 20


def trace_to_onnx(module: nn.Module, example: Tensor, path: Path, *, opset: int) -> onnx.ModelProto:
    """Export ``module`` in eval mode with a dynamic batch, and read the file back.

    Args:
        example: ``(2, channels, height, width)`` float32, or token ids ``(2, sequence)`` whose length stays
            dynamic; a batch of 1 would freeze the batch dimension.
        path: written in place; the caller owns atomicity.

    Raises:
        ExportError: an operation that cannot be exported, or another opset than asked for.
    """
    if len(example) < 2:
        raise ValueError("the example needs a batch of at least 2")
    module.eval()
    name = INPUT_NAME if example.is_floating_point() else TEXT_INPUT_NAME
    axes = {name: {0: "batch"}, OUTPUT_NAME: {0: "batch"}}
    if name == TEXT_INPUT_NAME:
        axes[name][1] = "sequence"
    try:
        with (
            warnings.catch_warnings(),
            torch.no_grad(),
            _no_graph_dump(),
            _one_argument(module),
            without_fast_path(),
        ):
            warnings.simplefilter(
                "ignore"
            )  # deprecation of the exporter itself, tracer hints on Python values
            torch.onnx.export(
                module, (example,), str(path), opset_version=opset, dynamo=False,
                input_names=[name], output_names=[OUTPUT_NAME],
                dynamic_axes=axes,
            )  # fmt: skip
    except (RuntimeError, ValueError, TypeError, torch.onnx.OnnxExporterError) as error:
        # The exporter appends the whole traced graph to its message; the first sentence is what helps.
        reason = str(error).split("[Caused by")[0].splitlines()[0][:300]
        raise ExportError(
            fault(type(module).__name__, f"cannot be exported to ONNX opset {opset}: {reason}")
        ) from error
    proto = onnx.load(str(path))
    written = opset_of(proto)
    if written != opset:
        raise ExportError(
            fault(str(path), "the exporter wrote another opset", got=written, allowed=str(opset))
        )
    return proto


@contextmanager
def _one_argument(module: nn.Module) -> Iterator[None]:
    """Hide what else ``forward`` could be given: the exporter makes inputs of the defaults, and an
    ``is_causal: bool = False`` (timm's EVA) arrives as a tensor."""
    own = module.__dict__.get("forward")
    forward = module.forward
    module.forward = lambda x: forward(x)
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextmanager
def _no_graph_dump() -> Iterator[None]:
    """Keep a failed export from printing the whole graph on stdout.

    torch 2.13 asks whether its log is on by naming the function instead of calling it
    (``setup_onnx_logging``), and so switches it on each time.
    """
    switch = torch._C._jit_set_onnx_log_enabled
    switch(False)  # somebody's own export may have switched it on before
    torch._C._jit_set_onnx_log_enabled = lambda enabled: None
    try:
        yield
    finally:
        torch._C._jit_set_onnx_log_enabled = switch


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of the default operator set that a file declares."""
    return next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
