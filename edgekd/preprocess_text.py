"""What happens to a text before the model sees it: the one definition that evaluation and deployment share.

The sibling of :class:`edgekd.preprocess.Preprocess`. The tokenizer is a Hugging Face ``tokenizer.json``, kept
here by content and by sha256: what is measured is what stands beside the deployed model. Lower-casing,
accents and word pieces are that file's business. numpy and ``tokenizers`` only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, ValidationError

from edgekd.errors import MissingDependencyError, ModelError, fault
from edgekd.preprocess import Preprocess

Text = str | tuple[str, str]
"""A document, or a pair of them."""

TOKENIZER_FILE = "tokenizer.json"
_EXAMPLE_LENGTH = 128  # what latencies and multiply-accumulates are told for, where the model takes it
_NAMES = {"pad": ("[PAD]", "<pad>"), "first": ("[CLS]", "<s>"), "separator": ("[SEP]", "</s>")}


class TextPreprocess(BaseModel):
    """Tokenize, cut to ``max_length``, pad to the batch's longest.

    A pair is ``first a separator b separator``; what is too long is cut from the longer part.

    Attributes:
        tokenizer: the file's name, beside the model.
        vocab_size: one more than the largest token id.
        first_id, separator_id: of the tokens around the parts (``[CLS]`` and ``[SEP]``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["text"] = "text"
    tokenizer: str = TOKENIZER_FILE
    tokenizer_sha256: str
    max_length: int = Field(ge=4)
    vocab_size: int = Field(ge=4)
    pad_id: int = Field(ge=0)
    first_id: int = Field(ge=0)
    separator_id: int = Field(ge=0)

    input_name: ClassVar[str] = "input_ids"
    _content: str | None = PrivateAttr(default=None)

    @classmethod
    def from_content(cls, content: str, *, max_length: int, where: str) -> TextPreprocess:
        """From the text of a ``tokenizer.json``.

        Its own truncation and padding are dropped; where it lacks the step that puts the special tokens
        around a text, BERT's is added.

        Raises:
            ModelError: not a tokenizer, or without a token for padding, start or separation.
        """
        engine = _engine(content, where)
        engine.no_truncation()
        engine.no_padding()
        ids = {role: _special(engine, role, where) for role in _NAMES}
        if engine.num_special_tokens_to_add(False) == 0:
            engine.post_processor = _around(engine, ids["first"], ids["separator"])
        content = engine.to_str()
        made = cls(
            tokenizer_sha256=hashlib.sha256(content.encode()).hexdigest(), max_length=max_length,
            vocab_size=1 + max(engine.get_vocab(with_added_tokens=True).values()), pad_id=ids["pad"],
            first_id=ids["first"], separator_id=ids["separator"],
        )  # fmt: skip
        made._content = content
        return made

    @classmethod
    def from_file(cls, path: Path, *, max_length: int, where: str) -> TextPreprocess:
        """As :meth:`from_content`, of a file."""
        return cls.from_content(_read(path, where), max_length=max_length, where=where)

    def found_in(self, folder: Path, where: str) -> TextPreprocess:
        """This, with the tokenizer that stands in ``folder``.

        Raises:
            ModelError: it is missing, or another one than this was made with.
        """
        path = folder / Path(self.tokenizer).name
        content = _read(path, where)
        if hashlib.sha256(content.encode()).hexdigest() != self.tokenizer_sha256:
            fix = "put the file back that was written with the model"
            raise ModelError(fault(where, f"{path} is another tokenizer than the model's", fix=fix))
        bound = self.model_copy()
        bound._content = content
        return bound

    @property
    def content(self) -> str:
        """The text of ``tokenizer.json``.

        Raises:
            ModelError: this came from a file that holds the settings alone: see :meth:`found_in`.
        """
        if self._content is None:
            raise ModelError(fault(self.tokenizer, "the tokenizer has not been read"))
        return self._content

    def files(self) -> dict[str, str]:
        """What must stand beside the model, by name."""
        return {self.tokenizer: self.content}

    def __call__(self, texts: Sequence[Text]) -> np.ndarray:
        """Token ids, int64 ``(texts, longest)``."""
        return self.pad(self.encode(texts)[0])

    def encode(self, texts: Sequence[Text]) -> tuple[list[np.ndarray], list[int]]:
        """Token ids of each text, int32 without padding, and the positions of those that had to be cut."""
        whole, cutting = _pair(self.content, self.max_length)
        rows = [np.array(encoding.ids, np.int32) for encoding in whole.encode_batch(list(texts))]
        long = [position for position, row in enumerate(rows) if len(row) > self.max_length]
        for position in long:
            text = texts[position]
            parts = (text,) if isinstance(text, str) else text
            rows[position] = np.array(cutting.encode(*parts).ids, np.int32)
        return rows, long

    def pad(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Rows of ids to int64 ``(rows, longest)``."""
        padded = np.full((len(rows), max(map(len, rows))), self.pad_id, np.int64)
        for line, row in zip(padded, rows, strict=True):
            line[: len(row)] = row
        return padded

    def example_shape(self, batch: int) -> tuple[int, ...]:
        """``(batch, sequence)``; 128 tokens, or as many as the model takes."""
        return (batch, min(self.max_length, _EXAMPLE_LENGTH))

    def example(self, batch: int, length: int | None = None) -> np.ndarray:
        """Valid ids spread over the vocabulary, int64, without padding: every token takes part.

        Args:
            length: tokens; unset: as :meth:`example_shape`.
        """
        rows, length = batch, length or self.example_shape(batch)[1]
        special = [self.pad_id, self.first_id, self.separator_id]
        plain = np.setdiff1d(np.arange(self.vocab_size), special)
        ids = plain[(np.arange(rows * length) * 7919) % len(plain)].reshape(rows, length).astype(np.int64)
        ids[:, 0], ids[:, -1] = self.first_id, self.separator_id
        return ids

    def same_ids(self, other: TextPreprocess) -> bool:
        """Whether a token has the same number in both."""
        if self.tokenizer_sha256 == other.tokenizer_sha256:
            return True
        mine, theirs = (_pair(each.content, each.max_length)[0].get_vocab() for each in (self, other))
        return bool(mine == theirs)

    def require_rows(self, embeddings: int, positions: int | None, where: str) -> None:
        """The tokenizer must fit the model.

        Args:
            embeddings: rows of the model's token embedding.
            positions: longest sequence that the model takes; None where nothing bounds it.

        Raises:
            ModelError: a token id without an embedding, or sequences longer than the model's positions.
        """
        if self.vocab_size > embeddings:
            fix = "give the tokenizer.json that belongs to this model"
            raise ModelError(fault(where, f"the tokenizer does not fit the model: it has {self.vocab_size} tokens",
                                   allowed=f"up to {embeddings}, the model's embedding", fix=fix))  # fmt: skip
        if positions is not None and self.max_length > positions:
            raise ModelError(
                fault(where, "max_length is longer than the model takes", got=self.max_length,
                      allowed=f"up to {positions} tokens")
            )  # fmt: skip


AnyPreprocess = Preprocess | TextPreprocess
_ANY: TypeAdapter[Preprocess | TextPreprocess] = TypeAdapter(AnyPreprocess)


def read_preprocess(settings: Any, folder: Path, where: str) -> AnyPreprocess:
    """What ``model_dump(mode="json")`` of either kind gave; a text's tokenizer is read from ``folder``.

    Raises:
        ModelError: neither kind, or the tokenizer is missing or another one.
    """
    try:
        found = _ANY.validate_python(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ModelError(
            fault(where, f"not a preprocessing: {problem['msg']}", got=problem["input"])
        ) from None
    return found.found_in(folder, where) if isinstance(found, TextPreprocess) else found


def _read(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        fix = "a Hugging Face tokenizer.json must stand beside the model"
        raise ModelError(fault(where, f"the tokenizer {path} cannot be read: {reason}", fix=fix)) from None


def _engine(content: str, where: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        fix = "pip install tokenizers"
        raise MissingDependencyError(fault("text", "tokenizers is not installed", fix=fix)) from None
    try:
        json.loads(content)
        return Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain Exception
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(fault(where, "not a tokenizer.json", got=reason)) from None


@lru_cache(maxsize=4)
def _pair(content: str, max_length: int) -> tuple[Any, Any]:
    """A tokenizer that never cuts, so that cutting can be counted, and one that does."""
    whole, cutting = (_engine(content, TOKENIZER_FILE) for _ in range(2))
    for engine in (whole, cutting):
        engine.no_padding()
    whole.no_truncation()
    cutting.enable_truncation(max_length)
    return whole, cutting


def _special(engine: Any, role: str, where: str) -> int:
    found = [number for name in _NAMES[role] if (number := engine.token_to_id(name)) is not None]
    if not found:
        allowed = " or ".join(_NAMES[role])
        raise ModelError(fault(where, f"the tokenizer has no {role} token", allowed=allowed))
    return int(found[0])


def _around(engine: Any, first: int, separator: int) -> Any:
    from tokenizers.processors import TemplateProcessing

    start, end = engine.id_to_token(first), engine.id_to_token(separator)
    return TemplateProcessing(
        single=f"{start} $A {end}", pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(start, first), (end, separator)],
    )  # fmt: skip
