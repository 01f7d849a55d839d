"""A Hugging Face configuration to a module: the one place that builds text models, with or without weights."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import MissingDependencyError, ModelError, fault
from edgekd.models.brief import brief
from edgekd.models.text_classifier import MaskForm, PooledHead, TextClassifier
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.preprocess_text import TextPreprocess

OWN_KEY = "edgekd"
"""Where ``config.json`` holds what the library does not know: ``{"pooling": "mean" | "first" | null}``."""
ATTENTION = "eager"  # plain products and softmax: every encoder has it, and it exports as what it is


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """The library, imported, without its log lines and progress bars; errors still raise.

    Raises:
        MissingDependencyError: it is not installed.
    """
    ensure_torchvision_ops()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        try:
            import transformers
            from transformers.utils import logging as own
        except ImportError:
            fix = "pip install transformers"
            raise MissingDependencyError(fault("hf:", "transformers is not installed", fix=fix)) from None
        bars = own.is_progress_bar_enabled()
        own.disable_progress_bar()
        try:
            yield transformers
        finally:
            if bars:
                own.enable_progress_bar()
    finally:
        logging.disable(before)


def read_config(settings: Mapping[str, Any], where: str) -> Any:
    """The library's configuration object from the content of a ``config.json``.

    Raises:
        ModelError: an unknown kind of model, code that would have to be trusted, or settings that clash.
    """
    kind = settings.get("model_type")
    with quiet_transformers() as transformers:
        known = transformers.CONFIG_MAPPING
        if settings.get("auto_map"):
            raise ModelError(
                fault(where, "the model brings its own code, which edgekd never runs",
                      got=f"auto_map in config.json of model_type {kind}",
                      fix="give a model whose architecture transformers itself has")
            )  # fmt: skip
        if kind not in known or known[kind] not in transformers.MODEL_MAPPING:
            raise ModelError(
                fault(where, "transformers has no such model", got=f"model_type: {kind}",
                      fix="give the folder of a Hugging Face text encoder")
            )  # fmt: skip
        try:
            return known[kind].from_dict(dict(settings))
        except Exception as error:  # the library's checks raise their own kinds
            raise ModelError(fault(where, "config.json is not usable", got=brief(error))) from error


def build_text(
    settings: Mapping[str, Any], preprocess: TextPreprocess, *, classes: int, where: str
) -> TextClassifier:
    """A fresh module with random weights, drawn from the global random state.

    Args:
        settings: the content of ``config.json``, with :data:`OWN_KEY`.
        classes: logits per text.

    Raises:
        ModelError: nothing that can be built.
    """
    config = read_config(settings, where)
    config.num_labels = classes
    pooling = (settings.get(OWN_KEY) or {}).get("pooling")
    with quiet_transformers() as transformers:
        kind = encoder_class(transformers, config, headed=pooling is None, where=where)
        try:
            encoder = kind._from_config(
                config, **encoder_options(kind, pooling), attn_implementation=ATTENTION
            )
        except Exception as error:
            raise ModelError(
                fault(where, f"transformers cannot build {config.model_type}", got=brief(error))
            ) from error
    return around(encoder, preprocess, pooling=pooling, classes=classes, where=where)


def encoder_class(transformers: Any, config: Any, *, headed: bool, where: str) -> Any:
    """The model class of a configuration, with the library's classification head or without.

    Raises:
        ModelError: this kind of model classifies no sequences.
    """
    table = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if headed else transformers.MODEL_MAPPING
    try:
        kind = table[type(config)]
        return kind[0] if isinstance(kind, tuple) else kind  # Funnel's: the whole model, and its first half
    except KeyError:
        raise ModelError(
            fault(where, "transformers has no text classifier of this kind",
                  got=f"model_type: {config.model_type}")
        ) from None  # fmt: skip


def encoder_options(kind: Any, pooling: str | None) -> dict[str, Any]:
    """No pooler of the library's beside our own head: it would be weights that nothing reads."""
    takes = inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if pooling and "add_pooling_layer" in takes else {}


def around(
    encoder: Any, preprocess: TextPreprocess, *, pooling: str | None, classes: int, where: str
) -> TextClassifier:
    """The library's model inside :class:`TextClassifier`, eval mode.

    Raises:
        ModelError: the tokenizer does not fit the model.
    """
    config = encoder.config
    preprocess.require_rows(len(encoder.get_input_embeddings().weight), longest(encoder), where)
    head = None
    if pooling is not None:
        head = PooledHead(config.hidden_size, classes, pooling="first" if pooling == "first" else "mean")
        head.linear.weight.data.normal_(std=getattr(config, "initializer_range", 0.02))
        head.linear.bias.data.zero_()
    takes = inspect.signature(encoder.forward).parameters
    module = TextClassifier(
        encoder, head, config=settings_of(config, pooling), pad_id=preprocess.pad_id,
        separator_id=preprocess.separator_id,
        segments=(getattr(config, "type_vocab_size", 0) or 0) > 1 and "token_type_ids" in takes
        and _numbers_the_second(preprocess),
    ).eval()  # fmt: skip
    module.mask = _mask_form(module, preprocess)
    return module


def _numbers_the_second(preprocess: TextPreprocess) -> bool:
    """Whether the tokenizer itself tells the second text of a pair from the first."""
    from tokenizers import Tokenizer

    return max(Tokenizer.from_str(preprocess.content).encode("a", "b").type_ids, default=0) > 0


def settings_of(config: Any, pooling: str | None) -> dict[str, Any]:
    """What goes to ``config.json``: nothing about where the model came from."""
    settings: dict[str, Any] = config.to_dict()
    for key in ("_name_or_path", "_attn_implementation", "transformers_version", "auto_map"):
        settings.pop(key, None)
    return {**settings, OWN_KEY: {"pooling": pooling}}


def longest(encoder: nn.Module) -> int | None:
    """Tokens that the position embedding has rows for; None where nothing bounds them.

    Where positions are counted from behind the padding's, that many rows are spent.
    """
    config: Any = encoder.config
    rows = getattr(config, "max_position_embeddings", None)
    words = encoder.get_input_embeddings()  # type: ignore[operator]
    for module in encoder.modules():
        if isinstance(module, nn.Embedding) and module is not words and module.num_embeddings == rows:
            spent = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - spent
    return None


@torch.no_grad()
def _mask_form(module: TextClassifier, preprocess: TextPreprocess) -> MaskForm:
    """The bias where the encoder takes it for the same answer: it exports as two small operations."""
    ids = torch.from_numpy(preprocess.example(2)[:, :8].copy())
    ids[0, -3:] = preprocess.pad_id
    expected, biased = _probe(module, ids, "flags"), _probe(module, ids, "bias")
    if expected is None:
        return "bias"  # it takes neither: the trial forward that follows says what is wrong
    same = biased is not None and torch.allclose(biased, expected, atol=1e-5)
    return "bias" if same else "flags"


def _probe(module: TextClassifier, ids: Tensor, mask: MaskForm) -> Tensor | None:
    """The answer with one form of the mask; None where the encoder's code does not take that form."""
    module.mask = mask
    try:
        answer: Tensor = module(ids)
    except Exception:  # whatever the library's code says to it: XLM's asserts
        return None
    return answer
