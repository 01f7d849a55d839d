"""A vocabulary of what the task's text uses: most of a small encoder is embeddings of words it never meets.

Vocabulary trimming after A. Ansell et al., "Distilling Efficient Language-Specific Models for Cross-Lingual
Transfer" (BiStil), Findings of ACL 2023, arXiv 2306.01709, section 2; here for WordPiece. Kept are the tokens of
the training texts, the special tokens, and every single character with and without its prefix: so a text that
brings new words still becomes word pieces, only shorter ones, and nothing becomes unknown that was not so before.
A text whose tokens are all kept is tokenized as before, because WordPiece takes the longest piece that fits.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from edgekd.errors import ModelError, fault
from edgekd.models.hf_build import build_text
from edgekd.models.loaded import LoadedModel
from edgekd.models.text_classifier import TextClassifier
from edgekd.preprocess_text import Text, TextPreprocess

_BLOCK = 1024
_FLOAT_BYTES = 4


def trimmed_to(preprocess: TextPreprocess, texts: Iterable[Text], where: str) -> TextPreprocess:
    """The same tokenizer with the tokens that ``texts`` use, numbered anew in the old order.

    Raises:
        ModelError: not WordPiece: the pieces of BPE and Unigram depend on each other.
    """
    content = json.loads(preprocess.content)
    kind = content.get("model", {}).get("type")
    if kind != "WordPiece":
        raise ModelError(
            fault(f"{where}: vocabulary", f"a {kind} tokenizer cannot be trimmed: which pieces a word becomes depends "
                  "on pieces that no text shows", allowed="WordPiece", fix="remove vocabulary=task")
        )  # fmt: skip
    vocabulary: dict[str, int] = content["model"]["vocab"]
    used = _used(preprocess, texts) | {entry["id"] for entry in content.get("added_tokens") or ()}
    prefix = content["model"].get("continuing_subword_prefix", "##")
    used |= {number for token, number in vocabulary.items() if len(token.removeprefix(prefix)) == 1}
    used.add(vocabulary[content["model"]["unk_token"]])
    renumbered = {old: new for new, old in enumerate(sorted(used))}
    content["model"]["vocab"] = {
        token: renumbered[old]
        for token, old in sorted(vocabulary.items(), key=lambda entry: entry[1])
        if old in used
    }
    for entry in content.get("added_tokens") or ():
        entry["id"] = renumbered[entry["id"]]
    _renumber_ends(content.get("post_processor") or {}, renumbered)
    return TextPreprocess.from_content(json.dumps(content), max_length=preprocess.max_length, where=where)


def in_vocabulary(model: LoadedModel, preprocess: TextPreprocess, where: str) -> LoadedModel:
    """``model`` for the ids of a trimmed tokenizer: the embeddings of the tokens that it still has.

    Raises:
        ModelError: not a text model of edgekd's, or the tokenizer has a token that the model's has not.
    """
    own = model.preprocess
    if not isinstance(own, TextPreprocess) or not isinstance(model.module, TextClassifier):
        fix = "give a Hugging Face model (hf:)"
        raise ModelError(
            fault(f"{where}: vocabulary", "the model is not one to trim", got=model.spec, fix=fix)
        )
    theirs, kept = _tokens(own), _tokens(preprocess)
    strange = next((token for token in kept if token not in theirs), None)
    if strange is not None:
        raise ModelError(
            fault(f"{where}: vocabulary", "the model's tokenizer has no such token", got=strange)
        )
    rows = torch.tensor([theirs[token] for token in sorted(kept, key=kept.__getitem__)])
    settings = _renumber_settings(
        model.module.config, {int(old): new for new, old in enumerate(rows)}, len(rows)
    )
    trimmed = build_text(settings, preprocess, classes=model.classes, where=where)
    words = _word_embedding(model.module)
    state = model.module.state_dict()
    whole = state[words]
    trimmed.load_state_dict({**state, words: whole[rows]})
    made = copy.copy(model)
    made.module, made.preprocess = trimmed, preprocess
    saved = (len(whole) - len(rows)) * whole.shape[1] * _FLOAT_BYTES
    note = f"{len(rows):,} of {len(whole):,} tokens kept: {saved / 1e6:.1f} MB of float32 embeddings less"
    made.notes = [*model.notes, note]
    return made


def _used(preprocess: TextPreprocess, texts: Iterable[Text]) -> set[int]:
    """Ids that appear in the whole of ``texts``, also behind where the model cuts them."""
    from tokenizers import Tokenizer

    engine = Tokenizer.from_str(preprocess.content)
    used: set[int] = set()
    block: list[Any] = []
    for text in texts:
        block.append(text)
        if len(block) == _BLOCK:
            used.update(number for encoding in engine.encode_batch(block) for number in encoding.ids)
            block = []
    if block:
        used.update(number for encoding in engine.encode_batch(block) for number in encoding.ids)
    return used


def _renumber_ends(processor: dict[str, Any], renumbered: Mapping[int, int]) -> None:
    """The ids that a post-processor puts around a text, in the forms that tokenizer.json knows."""
    for inner in processor.get("processors") or ():
        _renumber_ends(inner, renumbered)
    for entry in (processor.get("special_tokens") or {}).values():
        entry["ids"] = [renumbered[number] for number in entry["ids"]]
    for end in ("sep", "cls"):
        if isinstance(processor.get(end), list):
            processor[end][1] = renumbered[processor[end][1]]


def _renumber_settings(
    settings: Mapping[str, Any], renumbered: Mapping[int, int], size: int
) -> dict[str, Any]:
    made = {
        key: renumbered.get(value) if key.endswith("_token_id") and isinstance(value, int) else value
        for key, value in settings.items()
    }
    return {**made, "vocab_size": size}


def _tokens(preprocess: TextPreprocess) -> dict[str, int]:
    from tokenizers import Tokenizer

    found: dict[str, int] = Tokenizer.from_str(preprocess.content).get_vocab(with_added_tokens=True)
    return found


def _word_embedding(module: TextClassifier) -> str:
    """Name of the weight that the token ids choose from."""
    own: nn.Module = module.encoder.get_input_embeddings()  # type: ignore[operator]
    return next(f"{name}.weight" for name, child in module.named_modules() if child is own)
