"""An ONNX file of a BERT-shaped encoder back to a Hugging Face folder with weights that can be trained.

An export keeps the names of biases, norms and embeddings, and loses those of the matrices, which it stores
transposed under numbers. Each matrix takes the name of the node that multiplies with it. What was rebuilt is
compared with the file before it is written.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import safetensors.torch
import torch
from onnx import numpy_helper

from edgekd.artifact import atomic_path, sha256_file, write_json
from edgekd.data.cache_dir import cache_dir
from edgekd.errors import ModelFileError, fault
from edgekd.models.hf_build import ATTENTION, quiet_transformers
from edgekd.models.hf_files import CONFIG_FILE, TOKENIZER_FILE

TOLERANCE = 1e-4
"""Largest difference between the file's token vectors and the rebuilt model's."""

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


def rebuilt_folder(folder: Path) -> Path:
    """``folder`` itself; where it holds an ONNX file and a tokenizer and no weights, the rebuilt model in the cache.

    Raises:
        ModelFileError: as :func:`import_onnx_encoder`.
        OutputError: the cache cannot be written.
    """
    files, tokenizer = sorted(folder.glob("*.onnx")), folder / TOKENIZER_FILE
    if len(files) != 1 or not tokenizer.is_file() or any(any(folder.glob(each)) for each in _WEIGHTS):
        return folder
    out = cache_dir() / "encoders" / f"{sha256_file(files[0])[:16]}-{sha256_file(tokenizer)[:16]}"
    if not (out / CONFIG_FILE).is_file():  # written last
        import_onnx_encoder(files[0], tokenizer, out)
    return out


def import_onnx_encoder(file: Path, tokenizer: Path, out: Path) -> float:
    """Write ``config.json``, ``model.safetensors`` and ``tokenizer.json`` into ``out``, for ``hf:OUT``.

    Args:
        file: takes ``input_ids`` and ``attention_mask`` (and may take ``token_type_ids``), int64.
        tokenizer: the ``tokenizer.json`` that the model was trained with.

    Returns:
        The largest absolute difference of a token's vector between the file and the rebuilt model.

    Raises:
        ModelFileError: not such an encoder, or the rebuilt model answers otherwise.
        OutputError: ``out`` cannot be written.
    """
    proto = _read(file)
    state = named_weights(proto)
    settings = _settings(proto, state, file)
    with quiet_transformers() as transformers:
        config = transformers.BertConfig(**settings)
        model = transformers.BertModel._from_config(
            config, add_pooling_layer=False, attn_implementation=ATTENTION
        ).eval()
        expected = model.state_dict()
        mine = {name: state[name] for name in expected if name in state}
        missing = next((name for name in expected if name not in mine and not name.endswith("_ids")), None)
        if missing is not None or any(mine[name].shape != expected[name].shape for name in mine):
            raise ModelFileError(
                fault(str(file), "the weights are not those of a BERT-shaped encoder", got=f"no {missing}")
            )
        model.load_state_dict(mine, strict=False)
    difference = _difference(file, model)
    if not difference < TOLERANCE:
        raise ModelFileError(
            fault(str(file), "the rebuilt encoder answers otherwise than the file", got=difference,
                  allowed=f"below {TOLERANCE}")
        )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / "model.safetensors") as temporary:
        temporary.write_bytes(safetensors.torch.save(mine, metadata={"format": "pt"}))
    with atomic_path(out / TOKENIZER_FILE) as temporary:
        shutil.copyfile(tokenizer, temporary)
    write_json(out / CONFIG_FILE, {**settings, "model_type": "bert", "architectures": ["BertModel"]})
    return difference


def named_weights(proto: onnx.ModelProto) -> dict[str, torch.Tensor]:
    """Initialisers by the name that they have in the module, counted from ``embeddings.`` and ``encoder.``."""
    stored = {entry.name: numpy_helper.to_array(entry) for entry in proto.graph.initializer}
    modules = {name.removesuffix(".bias") for name in stored if name.endswith(".bias")}
    found: dict[str, np.ndarray] = {
        name: value for name, value in stored.items() if name.endswith((".weight", ".bias"))
    }
    for node in proto.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in stored or node.input[1] in found:
            continue
        parts = node.name.strip("/").split("/")[:-1]
        path = ".".join(parts)
        owner = next((path[start:] for start in _starts(path) if path[start:] in modules), path)
        found[f"{owner}.weight"] = stored[node.input[1]].T
    return {
        _inner(name): torch.from_numpy(np.array(value, np.float32, order="C"))
        for name, value in found.items()
    }


def _starts(path: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer(r"\.", path))]


def _inner(name: str) -> str:
    """Without what an export's wrapper put in front."""
    match = re.search(r"(?:^|\.)((?:embeddings|encoder)\..*)", name)
    return match[1] if match else name


def _read(file: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(file))
    except Exception as error:  # protobuf's and onnx's own kinds
        raise ModelFileError(
            fault(str(file), "is missing, corrupt or not an ONNX model", got=type(error).__name__)
        ) from None


def _settings(proto: onnx.ModelProto, state: Mapping[str, torch.Tensor], file: Path) -> dict[str, Any]:
    """The configuration, from shapes; the head size from what attention scores are divided by."""
    layers = {int(match[1]) for name in state if (match := _LAYER.match(name))}
    try:
        words = state["embeddings.word_embeddings.weight"]
        settings = {
            "vocab_size": words.shape[0],
            "hidden_size": words.shape[1],
            "num_hidden_layers": len(layers),
            "intermediate_size": state["encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": state["embeddings.position_embeddings.weight"].shape[0],
            "type_vocab_size": state["embeddings.token_type_embeddings.weight"].shape[0],
        }
        return {**settings, "num_attention_heads": words.shape[1] // _head_size(proto)}
    except (KeyError, StopIteration, ZeroDivisionError) as error:
        raise ModelFileError(
            fault(str(file), "is not a BERT-shaped encoder with its names", got=f"nothing for {error}",
                  fix="export it from the Hugging Face model with torch.onnx")
        ) from None  # fmt: skip


def _head_size(proto: onnx.ModelProto) -> int:
    constants = {entry.name: numpy_helper.to_array(entry) for entry in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    divisors = (
        float(constants[node.input[1]]) ** (2 if node.op_type == "Div" else -2)
        for node in proto.graph.node
        if node.op_type in ("Div", "Mul") and "attention" in node.name
        and node.input[1] in constants and constants[node.input[1]].size == 1
    )  # fmt: skip
    return round(next(divisors))


def _difference(file: Path, model: Any) -> float:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(5, model.config.vocab_size, (2, 12))
    mask = np.ones_like(ids)
    mask[0, 9:] = 0
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    feed = {entry.name: given[entry.name] for entry in session.get_inputs() if entry.name in given}
    with torch.no_grad():
        tensors = {name: torch.from_numpy(value) for name, value in given.items()}
        hidden = model(**tensors)[0].numpy()
    answers = [answer for answer in session.run(None, feed) if answer.shape == hidden.shape]
    real = mask.astype(bool)
    return min((float(abs(answer - hidden)[real].max()) for answer in answers), default=float("nan"))
