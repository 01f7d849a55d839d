"""A model on disk as edgekd saves it: ``model.safetensors`` beside ``model.json``.

``model.json`` holds ``format``, ``spec`` (the architecture, without weights), ``classes`` (names),
``preprocess``, ``fold_batch_norm``, ``weights_sha256`` and, for a user's own module, ``module_file``: a copy
of the Python file, so that the folder can be moved to another machine. ``surgery`` is what pruning cut out of
the architecture (:mod:`edgekd.models.surgery`), and ``reparametrized`` says that parallel branches were
merged before. A text model's ``config.json`` and
``tokenizer.json`` stand beside them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from edgekd.artifact import atomic_path, sha256_file, write_json, write_text
from edgekd.errors import ModelError, PreconditionError, fault
from edgekd.models.architecture import build_architecture
from edgekd.models.checkpoint import read_checkpoint
from edgekd.models.hf_files import CONFIG_FILE, read_json
from edgekd.models.loaded import LoadedModel, Request
from edgekd.models.reparametrize import is_reparametrized, reparametrize
from edgekd.models.surgery import Cut, cuts_of, mark_folded, replay_cuts
from edgekd.models.text_classifier import TextClassifier
from edgekd.models.text_preprocessing import with_input
from edgekd.models.user_file import parse_user
from edgekd.models.weights import fill
from edgekd.preprocess import Preprocess
from edgekd.preprocess_text import AnyPreprocess, TextPreprocess

WEIGHTS_FILE = "model.safetensors"
FACTS_FILE = "model.json"


class ModelFacts(BaseModel):
    """The content of ``model.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    spec: str
    classes: tuple[str, ...] = Field(min_length=2)
    preprocess: AnyPreprocess
    fold_batch_norm: bool
    weights_sha256: str
    module_file: str | None = None
    surgery: tuple[Cut, ...] = ()
    reparametrized: bool = False


def save_model_dir(
    path: Path,
    module: nn.Module,
    *,
    spec: str,
    classes: Sequence[str],
    preprocess: AnyPreprocess,
    folded: bool,
) -> None:
    """Write ``module``'s plain weights and what is needed to rebuild it. Equal weights give equal bytes.

    Each file appears whole or not at all, ``model.json`` last.

    Args:
        path: the folder; made where missing.
        module: without parametrizations: bake masks and fake-quantization first.
        spec: :attr:`LoadedModel.architecture`.
        classes: their names, in the order of the logits.
        folded: its batch norms are folded (:func:`edgekd.models.fold.fold_batch_norms`).

    Raises:
        PreconditionError: weights are still parametrized, or the model is a black box.
        OutputError: the disk is full or the folder cannot be written.
    """
    state = module.state_dict()
    if not spec or not state:
        raise PreconditionError(
            fault(str(path), "a model without weights of its own cannot be saved", got=spec)
        )
    parametrized = next((name for name in state if "parametrizations." in name), None)
    if parametrized:
        raise PreconditionError(
            fault(str(path), "weights are still parametrized", got=parametrized, fix="bake them first")
        )
    # Cloned one by one: tied weights share memory, which the format refuses.
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}
    payload = safetensors.torch.save(tensors, metadata={"format": "pt"})
    with atomic_path(path / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(payload)
    for name, content in preprocess.files().items():
        write_text(path / name, content)
    facts: dict[str, Any] = {
        "format": 1,
        "spec": spec,
        "classes": list(classes),
        "preprocess": preprocess.model_dump(mode="json"),
        "fold_batch_norm": folded,
        "weights_sha256": sha256_file(path / WEIGHTS_FILE),
    }
    if cuts := cuts_of(module):
        facts["surgery"] = [cut.model_dump(mode="json", exclude_defaults=True) for cut in cuts]
    if is_reparametrized(module):
        facts["reparametrized"] = True
    if isinstance(module, TextClassifier):
        write_json(path / CONFIG_FILE, module.config)
    if spec.startswith("torch:"):
        source = Path(parse_user(spec, str(path)).file)
        if source.resolve() != (path / source.name).resolve():
            with atomic_path(path / source.name) as temporary:
                shutil.copyfile(source, temporary)
        facts["module_file"] = source.name
    write_json(path / FACTS_FILE, facts)


def load_model_dir(path: Path, spec: str, request: Request) -> LoadedModel:
    """Rebuild what :func:`save_model_dir` wrote; classes are left at 0 for the caller's trial to fill in.

    Raises:
        ModelError: not such a folder, damaged, or its weights belong to another ``model.json``.
    """
    facts = read_facts(path, request.where)
    weights = path / WEIGHTS_FILE
    state = read_checkpoint(weights, request.where)
    if sha256_file(weights) != facts.weights_sha256:
        problem = f"{weights} is not the file that {FACTS_FILE} describes"
        raise ModelError(fault(request.where, problem, fix="save the model again"))
    architecture = _architecture(path, facts, request.where)
    own = facts.preprocess
    if isinstance(own, TextPreprocess):
        own = own.found_in(path, request.where)
    module = _fresh(path, architecture, own, classes=len(facts.classes), where=request.where)
    if facts.reparametrized:
        reparametrize(module, torch.from_numpy(own.example(2)))
    replay_cuts(module, [cut for cut in facts.surgery if not cut.after_fold], where=request.where)
    if facts.fold_batch_norm:
        from edgekd.models.fold import fold_batch_norms

        module.eval()
        fold_batch_norms(module, torch.from_numpy(own.example(2)))
        mark_folded(module)
    replay_cuts(module, [cut for cut in facts.surgery if cut.after_fold], where=request.where)
    fill(module, state, path=weights, where=request.where, source=architecture)
    return LoadedModel(
        module=module,
        spec=spec,
        preprocess=with_input(own, request.input, request.where),
        classes=0,
        weights="run",
        architecture=architecture,
        folded=facts.fold_batch_norm,
        class_names=facts.classes,
    )


def _fresh(path: Path, architecture: str, own: AnyPreprocess, *, classes: int, where: str) -> nn.Module:
    """The architecture with random weights; a text model's is the ``config.json`` beside the weights."""
    if architecture.startswith("hf:") and isinstance(own, TextPreprocess):
        from edgekd.models.hf_build import build_text

        return build_text(read_json(path / CONFIG_FILE, where), own, classes=classes, where=where)
    channels = own.channels if isinstance(own, Preprocess) else 0
    return build_architecture(architecture, classes=classes, channels=channels, where=where)


def read_facts(path: Path, where: str) -> ModelFacts:
    """The folder's ``model.json``.

    Raises:
        ModelError: missing, not JSON, or not of this format.
    """
    file = path / FACTS_FILE
    try:
        return ModelFacts.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ModelError(
            fault(
                where,
                f"{path} is not a model folder: it has no {FACTS_FILE}",
                allowed="a folder saved by edgekd, such as RUN/stages/00-distill",
            )
        ) from None
    except ValidationError as error:
        problem = error.errors()[0]
        spot = ".".join(str(part) for part in problem["loc"])
        raise ModelError(fault(f"{where}: {file}: {spot}", problem["msg"], got=problem["input"])) from None
    except (OSError, ValueError) as error:
        raise ModelError(fault(where, f"{file} cannot be read", got=str(error))) from None


def _architecture(path: Path, facts: ModelFacts, where: str) -> str:
    """The user's own file while it is the one that was saved (its neighbours are there), else the copy."""
    if facts.module_file is None:
        return facts.spec
    parsed = parse_user(facts.spec, where)
    copy = path / Path(facts.module_file).name
    original = Path(parsed.file)
    if original.is_file() and copy.is_file() and original.read_bytes() == copy.read_bytes():
        return facts.spec
    return f"torch:{copy.resolve()}:{parsed.factory}"
