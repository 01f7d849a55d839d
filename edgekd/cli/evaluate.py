"""``edgekd evaluate``: metrics of an ONNX file on data. Needs no torch: it runs on the board too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli.output import JsonOption, write_result


def evaluate(
    model: Annotated[Path, typer.Argument(help="An ONNX classifier.")],
    data: Annotated[str, typer.Option(help="Folder, .csv, .parquet, .npz, or builtin:NAME.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    split_seed: Annotated[int, typer.Option(help="Of the split, as in the recipe.")] = 0,
    max_samples: Annotated[int | None, typer.Option(help="At most this many, stratified.")] = None,
    threads: Annotated[int, typer.Option(help="0: every core.")] = 0,
    json_to: JsonOption = None,
) -> None:
    """Top-1, calibration error and likelihood of the file itself, run by ONNX Runtime."""
    import numpy as np

    from edgekd.cli.progress import progress_bar
    from edgekd.cpu import usable_cores
    from edgekd.data import eval_batches, open_data
    from edgekd.errors import DataError, UserInputError, fault
    from edgekd.profiles.session import open_session, run_batches
    from edgekd.recipe import DataRecipe
    from edgekd.tasks.image_classification import metrics

    if split not in ("train", "validation", "test"):
        raise UserInputError(fault("--split", "unknown split", got=split, allowed="train, validation, test"))
    session = open_session(model, threads=threads or usable_cores())
    preprocess = preprocess_of(model, session)
    with progress_bar() as progress:
        limits: dict[str, Any] = {f"max_{split}": max_samples} if split in ("train", "test") else {}
        opened = open_data(
            DataRecipe(path=data, split_seed=split_seed, **limits), base=Path.cwd(), progress=progress
        )
        chosen = {each.name: each for each in opened.splits()}[split]
        logits, labels = [], []
        for inputs, truth, _ in eval_batches(chosen, preprocess, batch_size=128):
            logits.append(run_batches(session, inputs))
            labels.append(truth)
            progress(f"evaluate {model.name}", sum(map(len, labels)), len(chosen))
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
    found: dict[str, Any] = metrics(answers, np.concatenate(labels), None)
    result = {"file": str(model), "data": opened.name, "split": split, "samples": len(answers),
              "metrics": found, "warnings": opened.warnings}  # fmt: skip
    if not write_result(result, json_to):
        typer.echo(f"{model} on {opened.name} ({split}, {len(answers)} samples): top-1 {100 * found['top1']:.2f} %, "
                   f"ECE {100 * found['ece']:.2f} %, NLL {found['nll']:.4f}")  # fmt: skip
        for warning in opened.warnings:
            typer.echo(f"warning: {warning}", err=True)


def preprocess_of(model: Path, session: Any) -> Any:
    """From the file's own metadata, from ``manifest.json`` beside it, or from the input's shape alone."""
    from edgekd.errors import UserInputError, fault
    from edgekd.preprocess import Preprocess

    text = session.get_modelmeta().custom_metadata_map.get("preprocess")
    manifest = model.parent / "manifest.json"
    if text is None and manifest.exists():
        text = json.dumps(json.loads(manifest.read_text(encoding="utf-8")).get("preprocess"))
    if text is not None and text != "null":
        return Preprocess.model_validate_json(text)
    raise UserInputError(
        fault(str(model), "says nothing of its preprocessing",
              allowed="metadata 'preprocess' or a manifest.json beside it", fix="export it with edgekd")
    )  # fmt: skip
