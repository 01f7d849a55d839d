"""``onnx:FILE``: a teacher of which only the answers are known, run through ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.errors import ModelError, ModelFileError, fault
from edgekd.models.brief import brief
from edgekd.models.loaded import LoadedModel, Request
from edgekd.models.preprocessing import DEFAULT_SIZE, from_declared

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_SILENT = 4  # ONNX Runtime's own log on stderr; what goes wrong is raised as well


class BlackBox(nn.Module):
    """An ONNX file as a module without parameters: no gradient reaches it.

    Args:
        path: the file; its first output is the logits.
        where: start of error messages.
        threads: of ONNX Runtime within one operator; None leaves the choice to it.

    Attributes:
        input_shape: ``(batch, channels, height, width)``; None where the file leaves a size open.

    Raises:
        ModelFileError: missing, corrupt or truncated; not one float32 NCHW input.
    """

    def __init__(self, path: Path, *, where: str, threads: int | None = None) -> None:
        super().__init__()
        self.path = path
        self.where = where
        self.threads = threads
        self._session: Any = None
        inputs = self._open().get_inputs()
        if len(inputs) != 1:
            names = ", ".join(entry.name for entry in inputs)
            raise ModelFileError(fault(where, f"{path} must have one input", got=names or "none"))
        self.input_name: str = inputs[0].name
        shape = [size if isinstance(size, int) and size > 0 else None for size in inputs[0].shape]
        if inputs[0].type != "tensor(float)":
            raise ModelFileError(fault(where, f"{path} must take float32", got=inputs[0].type))
        if len(shape) != 4 or shape[1] not in (None, 1, 3):
            wanted = "(batch, channels, height, width) with 1 or 3 channels"
            raise ModelFileError(
                fault(where, f"{path} takes another input shape", got=inputs[0].shape, allowed=wanted)
            )
        self.input_shape: tuple[int | None, ...] = tuple(shape)

    def _open(self) -> Any:
        if self._session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.log_severity_level = _SILENT
            if self.threads is not None:
                options.intra_op_num_threads = self.threads
            if not self.path.is_file():
                raise ModelFileError(fault(self.where, "no such ONNX file", got=str(self.path)))
            available = onnxruntime.get_available_providers()
            providers = [name for name in _PROVIDERS if name in available]
            try:
                self._session = onnxruntime.InferenceSession(str(self.path), options, providers=providers)
            except Exception as error:  # ONNX Runtime's exceptions share no base but this
                problem = f"{self.path} is corrupt, truncated or not an ONNX model that ONNX Runtime can run"
                raise ModelFileError(fault(self.where, problem, got=brief(error))) from error
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which can be neither copied nor sent to another process; it reopens."""
        return {**self.__dict__, "_session": None}

    def forward(self, images: Tensor) -> Tensor:
        """float32 ``(batch, channels, height, width)`` to logits ``(batch, classes)`` on the same device."""
        batch = np.ascontiguousarray(images.detach().to("cpu", torch.float32).numpy())
        size = self.input_shape[0] or len(batch)
        parts = [self._run(batch[start : start + size], size) for start in range(0, len(batch), size)]
        return torch.from_numpy(np.concatenate(parts)).to(images.device)

    def _run(self, chunk: np.ndarray, size: int) -> np.ndarray:
        short = size - len(chunk)
        if short > 0:  # a file with a fixed batch takes no less
            chunk = np.concatenate([chunk, np.zeros((short, *chunk.shape[1:]), np.float32)])
        first = np.asarray(self._open().run(None, {self.input_name: chunk})[0], dtype=np.float32)
        return first[: len(first) - short]


def load_black_box(spec: str, request: Request) -> LoadedModel:
    """The file as a teacher; classes are left at 0 for the caller's trial to fill in.

    Raises:
        ModelError: asked for as a student, or the recipe's input size contradicts the file's.
        ModelFileError: the file is not a usable classifier.
    """
    where = request.where
    if request.role == "student":
        raise ModelError(
            fault(
                where,
                "an ONNX file is a black box: it has no weights to train",
                got=spec,
                fix="name an architecture (timm:NAME@random) and use the ONNX file as the teacher",
            )
        )
    module = BlackBox(request.path(spec.removeprefix("onnx:")), where=where)
    _, channels, height, width = module.input_shape
    declared = {"height": height or DEFAULT_SIZE, "width": width or DEFAULT_SIZE}
    preprocess = from_declared(declared, request.input, channels or request.input.channels or 3, where)
    if (height or preprocess.height, width or preprocess.width) != (preprocess.height, preprocess.width):
        raise ModelError(
            fault(
                where,
                f"{module.path.name} takes {height}x{width} pixels",
                got=f"input.size: {request.input.size}",
                fix="remove input.size, or give a file of that size",
            )
        )
    notes = []
    if request.input.mean is None or request.input.std is None:
        notes.append(
            f"{module.path.name} does not say how its input is normalised: mean {preprocess.mean}, std "
            f"{preprocess.std} are assumed; set input.mean and input.std"
        )
    return LoadedModel(
        module=module,
        spec=spec,
        preprocess=preprocess,
        classes=0,
        weights="onnx",
        architecture="",
        notes=notes,
    )
