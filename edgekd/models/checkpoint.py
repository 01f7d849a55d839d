"""Reading a file of weights without running any code that it may carry.

safetensors files, or torch files with ``weights_only=True`` alone: a pickle can run any program when it is
loaded, so one that asks for anything but tensors is refused.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from edgekd.errors import ModelError, fault
from edgekd.models.brief import brief

# Averaged weights first: a training checkpoint that holds both was evaluated with these.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")


def read_checkpoint(path: Path, where: str) -> dict[str, Tensor]:
    """Name to tensor, out of its wrapper, on the CPU.

    Raises:
        ModelError: no such file, corrupt or truncated, holds code, or holds no tensors.
    """
    if not path.is_file():
        kind = "is a folder, not a checkpoint file" if path.is_dir() else "no such checkpoint"
        raise ModelError(fault(where, kind, got=str(path)))
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on the pickle's protocol; what does not load raises
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error) or "not an allowed" in str(error):
            raise ModelError(_code_inside(path, where)) from None
        raise ModelError(_corrupt(path, where, error)) from error
    except Exception as error:  # damaged bytes raise nearly anything
        raise ModelError(_corrupt(path, where, error)) from error
    state = _unwrap(content)
    if not state:
        held = sorted(map(str, content))[:5] if isinstance(content, Mapping) else type(content).__name__
        raise ModelError(
            fault(
                where,
                f"{path} holds no named tensors",
                got=held,
                allowed="a state dict, alone or under " + ", ".join(WRAPPERS),
            )
        )
    return state


def _code_inside(path: Path, where: str) -> str:
    return fault(
        where,
        f"{path} is a pickle with code in it, which edgekd never runs",
        fix="save the weights alone where you trust the file: torch.save(model.state_dict(), FILE)",
    )


def _corrupt(path: Path, where: str, error: Exception) -> str:
    return fault(
        where,
        f"{path} is corrupt, truncated or not a checkpoint",
        got=brief(error),
        allowed="safetensors, or torch.save of a state dict",
    )


def _unwrap(content: Any) -> dict[str, Tensor]:
    """The innermost mapping of names to tensors."""
    if not isinstance(content, Mapping):
        return {}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            inner = _unwrap(content[wrapper])
            if inner:
                return inner
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def align_names(state: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """``state`` without the prefixes that data-parallel, compiled or wrapped training put before names.

    Known prefixes, and a first part that every name has (``net.``). A prefix goes only when that brings more
    names into ``expected``.
    """
    wanted = set(expected)
    best = dict(state)
    score = len(wanted & best.keys())
    candidates = [best]
    while candidates:
        current = candidates.pop()
        first_parts = {name.partition(".")[0] + "." for name in current}
        for prefix in (*PREFIXES, *(first_parts if len(first_parts) == 1 else ())):
            if not any(name.startswith(prefix) for name in current):
                continue
            shorter = {name.removeprefix(prefix): tensor for name, tensor in current.items()}
            if len(shorter) < len(current):
                continue  # two names would become one
            candidates.append(shorter)
            if len(wanted & shorter.keys()) > score:
                best, score = shorter, len(wanted & shorter.keys())
    return best


def compare(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], optional: tuple[str, ...] = ()
) -> str | None:
    """Why ``state`` does not fit a model whose state dict is ``own``, or None where it fits.

    Args:
        optional: modules whose tensors may be missing (a head that is made anew).
    """

    def needed(name: str) -> bool:
        return not name.endswith("num_batches_tracked") and not name.startswith(
            tuple(f"{m}." for m in optional)
        )

    missing = [name for name in own if name not in state and needed(name)]
    unexpected = [name for name in state if name not in own]
    reshaped = [name for name in own if name in state and state[name].shape != own[name].shape]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing, first {missing[0]!r} {tuple(own[missing[0]].shape)}")
    if unexpected:
        parts.append(
            f"{len(unexpected)} unexpected, first {unexpected[0]!r} {tuple(state[unexpected[0]].shape)}"
        )
    if reshaped:
        name = reshaped[0]
        shapes = f"{tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        parts.append(f"{len(reshaped)} of another shape, first {name!r} {shapes}")
    return "; ".join(parts) or None
