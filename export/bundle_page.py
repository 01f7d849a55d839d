"""The bundle's ``README.md``: how to run the model on the board, and the facts about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import edgekd
from edgekd.device import DeviceSpec
from edgekd.preprocess_text import AnyPreprocess, TextPreprocess


def write_page(
    device: DeviceSpec,
    classes: Sequence[str],
    preprocess: AnyPreprocess,
    model: str,
    facts: Mapping[str, Any],
    *,
    pairs: bool = False,
) -> str:
    """Markdown; ``facts`` become a table."""
    text = isinstance(preprocess, TextPreprocess)
    example = preprocess.example_shape(1)
    shape = "x".join(str(size) for size in example)
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items() if value is not None)
    use = _use_text(preprocess, pairs) if isinstance(preprocess, TextPreprocess) else _USE_IMAGE
    if text:
        form = "int64 (batch, sequence)"
    else:
        form = f"float32 (batch, {', '.join(str(size) for size in example[1:])})"
    prepared = "`Encoder`" if text else "`load_image`"
    kind = "A text" if text else "An image"
    board = _tensorrt(preprocess.input_name, shape, bool(facts.get("pattern")))
    return f"""# {model} for {device.title}

{kind} classifier with {len(classes)} classes, written by edgekd {edgekd.__version__}.

## Run it on the board
{use}`--threads {device.cores}` sets the threads.
{board if device.runtime == "tensorrt" else ""}
## Use it in your own program

The input `{preprocess.input_name}` is {form}, prepared as {prepared} in `run.py` does; the output `logits` is
float32 (batch, {len(classes)}), in the order of `labels.json`. `manifest.json` holds the preprocessing, the
checksums and how the file was made.

| fact | value |
| --- | --- |
{rows}
"""


_USE_IMAGE = """
```
python3 -m pip install onnxruntime numpy Pillow
python3 run.py photo.jpg
```

Each line is: label, probability, file, separated by tabs. `--top 3` prints more labels, `--json` a JSON list,
"""


def _use_text(preprocess: TextPreprocess, pairs: bool) -> str:
    example = '"the first text" "the second"' if pairs else '"what the text says"'
    form = "two texts a line, a tab between" if pairs else "one text a line"
    return f"""
```
python3 -m pip install onnxruntime numpy tokenizers
python3 run.py {example}
python3 run.py --file documents.txt
```

Each line is: label, probability, text, separated by tabs; `--file` reads {form}.
Text over {preprocess.max_length} tokens is cut, and told. `--top 3` prints more labels, `--json` a
JSON list, """


def _tensorrt(name: str, shape: str, sparse: bool) -> str:
    flags = "--int8 --fp16" + (" --sparsity=enable" if sparse else "")
    return f"""
TensorRT builds its engine from the same file, on the board itself (not tried where this file was written):

```
trtexec --onnx=model.onnx {flags} --shapes={name}:{shape} --saveEngine=model.plan
```

Where onnxruntime has its TensorRT provider, `run.py` uses it; else it falls back to the CPU.
"""
