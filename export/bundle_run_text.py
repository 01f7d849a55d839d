#!/usr/bin/env python3
"""Classify texts with the model in this folder.

    python3 run.py "profits rose in the third quarter"
    python3 run.py --file documents.txt --top 3 --json
    python3 run.py "a man plays" "somebody makes music"     (a model of pairs)

Needs onnxruntime, numpy and tokenizers, nothing else; Python 3.8 or later. Each line: label, probability, text.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # a deployed model tells nobody that it ran

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
SHOWN = 60  # characters of the text in a line


class Encoder:
    """Texts to token ids, exactly as the model was trained and tested."""

    def __init__(self, preprocess: dict[str, Any]) -> None:
        path = str(HERE / preprocess["tokenizer"])
        self.longest = preprocess["max_length"]
        self.whole, self.cutting = Tokenizer.from_file(path), Tokenizer.from_file(path)
        for tokenizer in (self.whole, self.cutting):
            tokenizer.no_padding()
        self.whole.no_truncation()
        self.cutting.enable_truncation(self.longest)

    def __call__(self, parts: tuple[str, ...]) -> tuple[np.ndarray, int]:
        """Ids int64 (1, tokens), and how many tokens the whole text has."""
        text, pair = parts[0], parts[1] if len(parts) > 1 else None
        ids = self.whole.encode(text, pair).ids
        kept = ids if len(ids) <= self.longest else self.cutting.encode(text, pair).ids
        return np.array([kept], np.int64), len(ids)


def open_session(manifest: dict[str, Any], threads: int) -> onnxruntime.InferenceSession:
    """The runtime's session: on a TensorRT board its own provider where it is installed, else the CPU."""
    wanted = ["CPUExecutionProvider"]
    if manifest["runtime"] == "tensorrt":
        wanted = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    installed = onnxruntime.get_available_providers()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")  # each costs a hundred cycles
    if threads:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        str(HERE / manifest["model"]["file"]),
        options,
        providers=[name for name in wanted if name in installed],
    )


def probabilities(logits: np.ndarray, several: bool) -> np.ndarray:
    """Of one label a text, or of each label on its own where a text may have several."""
    wide = logits.astype(np.float64)
    if several:
        return 1 / (1 + np.exp(-wide))
    exponents = np.exp(wide - wide.max())
    return exponents / exponents.sum()


def answer(chances: np.ndarray, labels: list[str], top: int, several: bool) -> list[tuple[str, float]]:
    """The ``top`` most probable labels, best first; with several labels also all that are more likely than not."""
    order = np.argsort(-chances, kind="stable")
    count = max(top, int((chances > 0.5).sum())) if several else top
    return [(labels[k], float(chances[k])) for k in order[:count]]


def read_texts(options: argparse.Namespace, pairs: bool) -> Iterator[tuple[str, ...]]:
    """What stands on the command line, or one text (of a pair: two, a tab between) a line of a file."""
    if options.file is None:
        step = 2 if pairs else 1
        for start in range(0, len(options.text), step):
            yield tuple(options.text[start : start + step])
        return
    stream = sys.stdin if options.file == "-" else open(options.file, encoding="utf-8")  # noqa: PTH123, SIM115
    with stream:
        for number, line in enumerate(stream, 1):
            parts = tuple(line.rstrip("\r\n").split("\t")) if pairs else (line.strip(),)
            if pairs and len(parts) != 2 and line.strip():
                raise ValueError(f"line {number}: not two texts with a tab between")
            if line.strip():
                yield parts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Classify texts with the model in this folder.")
    parser.add_argument("text", nargs="*", help="texts; of a model of pairs, two for each answer")
    parser.add_argument("--file", metavar="FILE", help="a file with one text a line; - reads standard input")
    parser.add_argument(
        "--pair", action="store_true", help="classify pairs of texts, as a model of pairs does anyway"
    )
    parser.add_argument(
        "--top", type=int, default=1, metavar="K", help="the K most probable labels (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list instead of lines")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads; 0: the runtime's choice"
    )
    options = parser.parse_args(arguments)
    if options.top < 1 or options.threads < 0:
        parser.error("--top must be at least 1 and --threads at least 0")
    if bool(options.text) == (options.file is not None):
        parser.error("give texts, or --file FILE")
    try:
        manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
        labels = json.loads((HERE / "labels.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{HERE}: copy this folder as a whole: {error}", file=sys.stderr)
        return 1
    pairs = manifest.get("pairs", options.pair)
    if options.pair and not pairs:
        parser.error("--pair: the model was trained on single texts")
    if pairs and len(options.text) % 2:
        parser.error(f"the model takes pairs: an even number of texts, not {len(options.text)}")
    try:
        session, encoder = open_session(manifest, options.threads), Encoder(manifest["preprocess"])
    except Exception as error:  # both libraries' exceptions derive from Exception alone
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"{HERE}: cannot be loaded: {reason}", file=sys.stderr)
        return 1
    several, name = bool(manifest.get("several_labels")), session.get_inputs()[0].name
    answers, failed = [], 0
    try:
        for parts in read_texts(options, pairs):
            shown = " | ".join(" ".join(part.split()) for part in parts)[:SHOWN]
            if any("\udc80" <= letter <= "\udcff" for part in parts for letter in part):
                print(f"not UTF-8 text: {shown!a}", file=sys.stderr)
                failed = 2
                continue
            if not all(part.strip() for part in parts):
                print("a text is empty", file=sys.stderr)
                failed = 2
                continue
            ids, tokens = encoder(parts)
            if tokens > encoder.longest:
                print(f"cut from {tokens} to {encoder.longest} tokens: {shown}", file=sys.stderr)
            (logits,) = session.run(None, {name: ids})
            best = answer(probabilities(logits[0], several), labels, options.top, several)
            if options.json:
                predictions = [{"label": label, "probability": chance} for label, chance in best]
                given: Any = parts[0] if len(parts) == 1 else list(parts)
                facts = {"input": given, "tokens": tokens, "cut": tokens > encoder.longest}
                answers.append({**facts, "predictions": predictions})
                continue
            for label, chance in best:
                print(f"{label}\t{chance:.4f}\t{shown}")
    except (OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        told = (
            "not UTF-8 text" if isinstance(error, UnicodeError) else getattr(error, "strerror", None) or error
        )
        print(f"{options.file}: {told}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(answers, ensure_ascii=False, indent=2))
    return failed


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
