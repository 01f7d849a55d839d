"""A smaller student out of a text model: fewer layers, fewer heads, with the weights that it keeps.

``same?layers=3&width=192&mlp=768`` asks for it. Manual weight inheritance: every k-th layer, the first heads
and the first channels of every tensor (K. Wu et al., "TinyCLIP", ICCV 2023, arXiv 2309.12314; dropping
alternate layers also in A. Ansell et al., "Distilling Efficient Language-Specific Models for Cross-Lingual
Transfer" (BiStil), Findings of ACL 2023, arXiv 2306.01709). The stack of layers is found by its structure: the
longest list of blocks of one class.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError, fault, nearest
from edgekd.models.hf_build import OWN_KEY, build_text, quiet_transformers, read_config
from edgekd.models.loaded import LoadedModel
from edgekd.models.text_classifier import TextClassifier
from edgekd.models.trial import try_forward
from edgekd.preprocess_text import TextPreprocess

FORM = "same?layers=3, same?layers=0,2,5 (which ones), width=CHANNELS, mlp=CHANNELS, vocabulary=task"
_KEYS = ("layers", "width", "mlp", "vocabulary")


@dataclass(frozen=True)
class Smaller:
    """What follows the ``?`` of a student.

    Attributes:
        layers: how many, or which (counted from 0); None: all.
        width: channels between the layers; None: as they are.
        mlp: channels inside the feed-forward blocks.
        vocabulary: keep only the tokens that the task's text uses.
    """

    layers: int | tuple[int, ...] | None = None
    width: int | None = None
    mlp: int | None = None
    vocabulary: bool = False

    @property
    def cuts(self) -> bool:
        return self.layers is not None or self.width is not None or self.mlp is not None


def parse_smaller(spec: str, where: str) -> tuple[str, Smaller]:
    """``"same?layers=3"`` to ``("same", Smaller(layers=3))``.

    Raises:
        ModelError: an unknown key, or a value that is no count.
    """
    base, mark, query = spec.partition("?")
    if not mark:
        return base, Smaller()
    found: dict[str, Any] = {}
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if key not in _KEYS:
            raise ModelError(fault(where, "unknown setting of a student", got=key or spec, allowed=FORM,
                                   fix=nearest(key, _KEYS)))  # fmt: skip
        if key == "vocabulary":
            good = value == "task"
            found[key] = True
        else:
            good = bool(re.fullmatch(r"\d+" if key != "layers" else r"\d+(,\d+)*,?", value))
            numbers = tuple(int(each) for each in value.split(",") if each) if good else ()
            found[key] = numbers if "," in value else (numbers or (0,))[0]
            good = good and (found[key] != 0)
        if not good:
            raise ModelError(fault(f"{where}: {key}", "not usable", got=value, allowed=FORM))
    return base, Smaller(**found)


def find_stack(module: nn.Module) -> tuple[str, int]:
    """Name and length of the longest list of blocks of one class.

    Raises:
        ValueError: there is none of at least two blocks.
    """
    found = [
        (len(child), -name.count("."), name)
        for name, child in module.named_modules()
        if isinstance(child, nn.ModuleList) and len(child) > 1 and len({type(block) for block in child}) == 1
    ]
    if not found:
        raise ValueError("no list of equal blocks")
    length, _, name = max(found)
    return name, length


def spread(wanted: int, total: int) -> tuple[int, ...]:
    """``wanted`` of ``total`` layers, evenly, the last among them: 3 of 6 are 1, 3 and 5."""
    return tuple(round((step + 1) * total / wanted) - 1 for step in range(wanted))


def derive_student(model: LoadedModel, smaller: Smaller, where: str) -> LoadedModel:
    """A smaller model with ``model``'s weights.

    Raises:
        ModelError: not a text model, more layers or channels than there are, channels that leave part of a head.
    """
    teacher, preprocess = model.module, model.preprocess
    if not isinstance(teacher, TextClassifier) or not isinstance(preprocess, TextPreprocess):
        raise ModelError(
            fault(where, "layers, width and mlp are settings of text models", got=model.spec,
                  fix="for others use a stage: prune: {method: depth} or {method: channels}")
        )  # fmt: skip
    try:
        stack, total = find_stack(teacher)
    except ValueError:
        raise ModelError(fault(where, "the model has no list of equal layers to choose from")) from None
    kept = _kept(smaller.layers, total, where)
    settings = _smaller_settings(teacher.config, kept, smaller, total, where)
    student = build_text(settings, preprocess, classes=model.classes, where=where)
    _inherit(student, teacher.state_dict(), stack, kept)
    notes = (
        [f"layers {', '.join(map(str, kept))} of {total}, with their weights"] if len(kept) < total else []
    )
    if smaller.width or smaller.mlp:
        notes.append(
            f"the first {smaller.width or 'all'} channels and {smaller.mlp or 'all'} of the feed-forward"
        )
    made = copy.copy(model)
    made.module, made.notes = student, [*model.notes, *notes]
    try_forward(student, preprocess, where)
    return made


def _kept(layers: int | tuple[int, ...] | None, total: int, where: str) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(total))
    kept = spread(layers, total) if isinstance(layers, int) and layers <= total else layers
    if isinstance(kept, int) or max(kept) >= total or sorted(set(kept)) != list(kept):
        raise ModelError(
            fault(f"{where}: layers", "not layers of the model", got=layers,
                  allowed=f"1 to {total}, or numbers from 0 to {total - 1} in rising order")
        )  # fmt: skip
    return kept


def _smaller_settings(
    settings: Mapping[str, Any], kept: tuple[int, ...], smaller: Smaller, total: int, where: str
) -> dict[str, Any]:
    """The configuration of the student; what it lists for each layer is chosen along."""
    config = read_config(settings, where)
    if smaller.width is not None:
        heads = config.num_attention_heads
        size = config.hidden_size // heads
        if smaller.width > config.hidden_size or smaller.width % size:
            raise ModelError(
                fault(f"{where}: width", "not a number of whole heads", got=smaller.width,
                      allowed=f"multiples of {size} up to {config.hidden_size}")
            )  # fmt: skip
        config.hidden_size, config.num_attention_heads = smaller.width, smaller.width // size
    if smaller.mlp is not None:
        if smaller.mlp > config.intermediate_size:
            raise ModelError(
                fault(f"{where}: mlp", "more channels than the model has", got=smaller.mlp,
                      allowed=f"up to {config.intermediate_size}")
            )  # fmt: skip
        config.intermediate_size = smaller.mlp
    with quiet_transformers():
        config.num_hidden_layers = len(kept)
        made: dict[str, Any] = config.to_dict()
    for key, value in made.items():
        if isinstance(value, list) and len(value) == total and key != "architectures":
            made[key] = [value[position] for position in kept]
    return {**made, OWN_KEY: settings.get(OWN_KEY)}


@torch.no_grad()
def _inherit(student: nn.Module, source: Mapping[str, Tensor], stack: str, kept: tuple[int, ...]) -> None:
    for name, tensor in student.state_dict().items():
        origin = name
        if name.startswith(f"{stack}."):
            position, rest = name.removeprefix(f"{stack}.").split(".", 1)
            origin = f"{stack}.{kept[int(position)]}.{rest}"
        tensor.copy_(leading(source[origin], tensor.shape))


def leading(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The first entries along every axis; of query, key and value in one matrix, the first of each."""
    if tensor.shape == shape:
        return tensor
    if tensor.ndim == 2 and tensor.shape[0] == 3 * tensor.shape[1] and shape[0] == 3 * shape[1]:
        return torch.cat([leading(part, torch.Size((shape[1], shape[1]))) for part in tensor.chunk(3)])
    return tensor[tuple(slice(size) for size in shape)]
