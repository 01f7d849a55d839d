"""Every kind of Hugging Face text classifier, tiny and with random weights: is its file the same function, in integers?

Each is loaded from a folder as a user's would be, masked 2:4, quantized and written, with a float file beside it.
Both files are asked about texts of another length than they were traced with; the integers are compared with
their exact simulation. What cannot be loaded or written is a row that says why.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import write

from edgekd.errors import EdgeKDError
from edgekd.export.coverage import check_coverage
from edgekd.export.write import export_float, export_quantized
from edgekd.models.hf_build import quiet_transformers
from edgekd.models.resolve import resolve_model
from edgekd.profiles.session import open_session
from edgekd.prune.apply import prune
from edgekd.quant.exact import ExactTwin
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import get_scheme
from edgekd.quant.settle import settle_scales
from edgekd.recipe import InputRecipe

SIZE = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
        "max_position_embeddings": 40, "pad_token_id": 0}  # fmt: skip
XLM = {"vocab_size": 200, "emb_dim": 32, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 40, "pad_index": 0,
       "pad_token_id": 0, "n_langs": 1}  # fmt: skip
ONE_SEGMENT = {**SIZE, "type_vocab_size": 1}
ENDS = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
KINDS: dict[str, dict[str, Any]] = {
    "albert": SIZE, "bert": SIZE, "big_bird": SIZE, "camembert": SIZE, "convbert": SIZE, "ctrl": SIZE,
    "data2vec-text": ONE_SEGMENT, "deberta": SIZE, "deberta-v2": SIZE, "distilbert": SIZE, "electra": SIZE,
    "ernie": SIZE, "esm": SIZE, "eurobert": {**SIZE, "num_key_value_heads": 4}, "flaubert": XLM, "fnet": SIZE,
    "funnel": {"vocab_size": 200, "block_sizes": [2, 2], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64,
               "pad_token_id": 0},
    "gpt2": SIZE, "layoutlm": SIZE, "longformer": SIZE, "luke": SIZE, "markuplm": SIZE, "megatron-bert": SIZE,
    "mobilebert": SIZE, "modernbert": {**SIZE, **ENDS, "local_attention": 8}, "mpnet": SIZE, "mra": SIZE,
    "nomic_bert": SIZE, "nystromformer": SIZE, "opt": SIZE, "rembert": SIZE, "roberta": ONE_SEGMENT,
    "roc_bert": {**SIZE, "pooler_hidden_size": 32}, "roformer": SIZE,
    "squeezebert": {**SIZE, "embedding_size": 32}, "xlm": XLM, "xlm-roberta": ONE_SEGMENT, "xlm-roberta-xl": SIZE,
    "xlnet": {"vocab_size": 200, "d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 64, "pad_token_id": 0},
    "xmod": {**SIZE, "default_language": "en_XX"}, "yoso": SIZE,
}  # fmt: skip
TEXTS = ("the oil price rose in the gulf", "grain stocks", "the bank cut its interest rate", "exports fell")
LENGTH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help="model_type of transformers; those of the list without it")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = {}
    for kind in options.kinds or KINDS:
        rows[kind] = one(kind)
        print(kind, rows[kind], flush=True)
    if not options.kinds:
        write("text-kinds", {"length_traced": 8, "lengths_asked": [LENGTH, LENGTH + 5], "kinds": rows})


def one(kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        try:
            save(kind, folder)
            where = InputRecipe(max_length=LENGTH)
            loaded = resolve_model(f"hf:{folder}", classes=3, input=where, base=folder, where=kind)
            return row(loaded, folder)
        except (EdgeKDError, RuntimeError) as error:
            return {"refused": str(error).splitlines()[0].replace(str(folder), "the model")}


def row(loaded: Any, folder: Path) -> dict[str, Any]:
    net = loaded.module.eval()
    example = torch.from_numpy(loaded.preprocess.example(2, 8))
    ids = torch.from_numpy(loaded.preprocess(list(TEXTS)))
    batches = [ids, torch.cat([ids, torch.zeros(len(ids), 5, dtype=ids.dtype)], dim=1)]
    export_float(net, example, folder / "float.onnx", opset=17)
    found: dict[str, Any] = {"float_max_abs_diff": apart(folder / "float.onnx", net, batches)}
    found["masked_layers"] = len(prune(net, "2:4").layers)
    quantized = prepare_qat(net, ids, get_scheme("u8s8"))
    quantized.calibrate([ids])
    settle_scales(quantized, ids)
    export_quantized(quantized, example, folder / "int8.onnx", opset=17)
    covered = check_coverage(folder / "int8.onnx")
    twin = ExactTwin(quantized, ids)
    return found | {
        "integer_ops": covered.integer_ops, "float_ops": covered.float_ops,
        "int8_max_abs_diff": apart(folder / "int8.onnx", twin, batches), "notes": loaded.notes,
    }  # fmt: skip


@torch.no_grad()
def apart(file: Path, net: torch.nn.Module, batches: list[torch.Tensor]) -> float:
    session = open_session(file)
    answers = [(session.run(None, {"input_ids": ids.numpy()})[0], net(ids).numpy()) for ids in batches]
    return float(max(np.abs(a - b).max() for a, b in answers))


def save(kind: str, folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    torch.manual_seed(0)
    with quiet_transformers() as transformers:
        config = transformers.AutoConfig.for_model(kind, **KINDS.get(kind, SIZE))
        config.num_labels = 3
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)  # fresh weights answer every text nearly alike
        model.save_pretrained(folder)
    words = dict.fromkeys(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({w for text in TEXTS for w in text.split()})]
    )
    own = Tokenizer(models.WordPiece({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    own.normalizer, own.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    own.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=ends
    )
    own.save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    main()
