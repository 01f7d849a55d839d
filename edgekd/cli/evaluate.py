"""``edgekd evaluate``: metrics of an ONNX file on data. Needs no torch: it runs on the board too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli.output import JsonOption, write_result

_LENGTH = 128  # tokens, for a text model that says nothing


def evaluate(
    model: Annotated[Path, typer.Argument(help="An ONNX classifier.")],
    data: Annotated[str, typer.Option(help="Folder, .csv, .jsonl, .parquet, .npz, or builtin:NAME.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    split_seed: Annotated[int, typer.Option(help="Of the split, as in the recipe.")] = 0,
    max_samples: Annotated[int | None, typer.Option(help="At most this many, stratified.")] = None,
    threads: Annotated[int, typer.Option(help="0: every core.")] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A text model's tokenizer.json; unset: the one beside the model.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens; unset: the model's own, else 128.")] = None,
    text_column: Annotated[str, typer.Option(help="Of a table of texts.")] = "text",
    pair_column: Annotated[str | None, typer.Option(help="The second text; unset: text_pair.")] = None,
    label_column: Annotated[str, typer.Option(help="Of a table.")] = "label",
    split_column: Annotated[str | None, typer.Option(help="Of a table; unset: split here.")] = None,
    label_separator: Annotated[str | None, typer.Option(help="Between several labels in one cell.")] = None,
    json_to: JsonOption = None,
) -> None:
    """Accuracy, calibration and likelihood of an ONNX file.

    ONNX Runtime runs the file itself. Needs no torch.
    """
    import numpy as np

    from edgekd.cli.progress import progress_bar
    from edgekd.cpu import usable_cores
    from edgekd.data import eval_batches, open_data
    from edgekd.data.tokens import cut_warnings
    from edgekd.errors import DataError, UserInputError, fault
    from edgekd.preprocess_text import TextPreprocess
    from edgekd.profiles.session import open_session, run_batches
    from edgekd.recipe import DataRecipe
    from edgekd.tasks import IMAGE, TEXT

    if split not in ("train", "validation", "test"):
        raise UserInputError(fault("--split", "unknown split", got=split, allowed="train, validation, test"))
    session = open_session(model, threads=threads or usable_cores())
    preprocess = preprocess_of(model, session, tokenizer, max_length)
    text = isinstance(preprocess, TextPreprocess)
    with progress_bar() as progress:
        limits: dict[str, Any] = {f"max_{split}": max_samples} if split in ("train", "test") else {}
        columns: dict[str, Any] = {"text_column": text_column, "pair_column": pair_column,
                                   "label_column": label_column, "label_separator": label_separator,
                                   "split_column": split_column}  # fmt: skip
        opened = open_data(
            DataRecipe(path=data, split_seed=split_seed, **limits, **columns), base=Path.cwd(),
            progress=progress, text=text,
        )  # fmt: skip
        if isinstance(preprocess, TextPreprocess):
            opened.warnings.extend(cut_warnings(opened, preprocess))
        chosen = {each.name: each for each in opened.splits()}[split]
        logits: list[Any] = []
        for inputs, _, _ in eval_batches(chosen, preprocess, batch_size=128):
            logits.append(run_batches(session, inputs))
            progress(f"evaluate {model.name}", sum(map(len, logits)), len(chosen))
    answers = np.concatenate(logits)
    if opened.classes and answers.shape[1] != len(opened.classes):
        raise DataError(
            fault(
                str(model),
                "its outputs do not fit the data's classes",
                got=answers.shape[1],
                allowed=str(len(opened.classes)),
            )
        )
    truth = chosen.labels if chosen.targets is None else chosen.targets
    found: dict[str, Any] = (TEXT if text else IMAGE).metrics(answers, truth, None)
    result = {"file": str(model), "data": opened.name, "split": split, "samples": len(answers),
              "metrics": found, "warnings": opened.warnings}  # fmt: skip
    if not write_result(result, json_to):
        told = ", ".join(_told(name, value) for name, value in found.items() if value is not None)
        typer.echo(f"{model} on {opened.name} ({split}, {len(answers)} samples): {told}")
        for warning in opened.warnings:
            typer.echo(f"warning: {warning}", err=True)


_NAMES = {"top1": "top-1", "ece": "ECE", "nll": "NLL", "f1_macro": "macro F1", "f1_micro": "micro F1",
          "exact_match": "exact match"}  # fmt: skip


def _told(name: str, value: float) -> str:
    return f"{_NAMES.get(name, name)} " + (
        f"{value:.4f}" if name in ("nll", "ece") else f"{100 * value:.2f} %"
    )


def preprocess_of(
    model: Path, session: Any, tokenizer: Path | None = None, max_length: int | None = None
) -> Any:
    """From the file's own metadata, from ``manifest.json`` beside it, or from a tokenizer that is given.

    A text model's tokenizer stands beside it.
    """
    from edgekd.errors import UserInputError, fault
    from edgekd.preprocess_text import TOKENIZER_FILE, TextPreprocess, read_preprocess

    text = session.get_modelmeta().custom_metadata_map.get("preprocess")
    manifest = model.parent / "manifest.json"
    if text is None and manifest.exists():
        text = json.dumps(json.loads(manifest.read_text(encoding="utf-8")).get("preprocess"))
    settings = json.loads(text) if text else None
    takes_ids = session.get_inputs()[0].type in ("tensor(int64)", "tensor(int32)")
    if tokenizer is not None and not takes_ids:
        raise UserInputError(
            fault("--tokenizer", "the model takes images, not token ids", got=str(tokenizer))
        )
    beside = model.parent / TOKENIZER_FILE
    if takes_ids and (tokenizer is not None or (settings is None and beside.exists())):
        length = max_length or (settings or {}).get("max_length") or _LENGTH
        made = TextPreprocess.from_file(tokenizer or beside, max_length=length, where=str(model))
        expected = (settings or {}).get("vocab_size", made.vocab_size)
        if made.vocab_size != expected:
            raise UserInputError(
                fault(
                    "--tokenizer",
                    "is not the model's",
                    got=f"{made.vocab_size} tokens",
                    allowed=str(expected),
                )
            )
        return made
    if settings is not None:
        found = read_preprocess(settings, model.parent, str(model))
        if max_length is not None and isinstance(found, TextPreprocess):
            return found.model_copy(update={"max_length": max_length})
        return found
    allowed = (
        "a tokenizer.json beside it or --tokenizer" if takes_ids else "metadata or a manifest.json beside it"
    )
    raise UserInputError(
        fault(str(model), "says nothing of its preprocessing", allowed=allowed, fix="export it with edgekd")
    )
