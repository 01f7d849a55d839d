"""What was cut is repeated on a fresh architecture, and a file can only make a network smaller."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.directory import load_model_dir, save_model_dir
from edgekd.models.loaded import LoadedModel, Request
from edgekd.models.resolve import resolve_model
from edgekd.models.surgery import Cut, cuts_of, replay_cuts
from edgekd.prune.amounts import counts_for, pruned_copy
from edgekd.prune.depth import drop_blocks, find_blocks
from edgekd.prune.find import find_unit_groups
from edgekd.prune.low_rank import plan_ranks, split_layers
from edgekd.prune.unit_saliency import unit_scores
from edgekd.recipe import InputRecipe

CLASSES = [str(k) for k in range(6)]


def net(name: str, size: int) -> LoadedModel:
    torch.manual_seed(0)
    spec = f"timm:{name}?img_size={size}@random" if "vit" in name else f"timm:{name}@random"
    return resolve_model(
        spec, classes=6, input=InputRecipe(size=size), base=Path(), where="t", role="student"
    )


def smaller(loaded: LoadedModel, size: int) -> nn.Module:
    """Depth, then channels, then low rank."""
    model, example = loaded.module, torch.zeros(2, 3, size, size)
    drop_blocks(model, find_blocks(model, example)[-1:])
    groups, _ = find_unit_groups(model, example)
    scores = unit_scores(model, groups, "l2")
    counts = counts_for(groups, 0.4, round_to=8, scope="uniform", scores=scores)
    model = pruned_copy(model, groups, counts, scores)
    split_layers(model, plan_ranks(model, example, 1.5)[0])
    return model.eval()


def save(folder: Path, model: nn.Module, loaded: LoadedModel) -> Path:
    save_model_dir(folder, model, spec=loaded.architecture, classes=CLASSES,
                   preprocess=loaded.preprocess, folded=False)  # fmt: skip
    return folder


def load(folder: Path) -> nn.Module:
    request = Request(classes=6, input=InputRecipe(), base=Path(), where="recipe.yaml: teacher")
    return load_model_dir(folder, str(folder), request).module.eval()


@pytest.mark.parametrize(("name", "size"), [("test_resnet", 32), ("test_vit", 32)])
def test_three_ways_of_pruning_come_back_from_disk(name, size, tmp_path):
    loaded = net(name, size)
    model = smaller(loaded, size)
    again = load(save(tmp_path / "a", model, loaded))
    x = torch.randn(3, 3, size, size)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert len(cuts_of(again)) == len(cuts_of(model)) == 3
    twice = load(save(tmp_path / "b", again, loaded))  # saved, loaded, saved
    with torch.no_grad():
        assert torch.equal(twice(x), model(x))
    assert (tmp_path / "a" / "model.json").read_bytes() == (tmp_path / "b" / "model.json").read_bytes()


def test_loading_needs_no_pruning_library(tmp_path):
    loaded = net("test_resnet", 32)
    folder = save(tmp_path / "a", smaller(loaded, 32), loaded)
    script = (
        "import sys; sys.modules['torch_pruning'] = None\n"
        "from pathlib import Path\n"
        "from edgekd.models.resolve import resolve_model\n"
        "from edgekd.recipe import InputRecipe\n"
        f"resolve_model({str(folder)!r}, classes=6, input=InputRecipe(), base=Path(), where='t')\n"
        "assert not [name for name in sys.modules if name.startswith('edgekd.prune')]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_model_that_was_folded_first_is_folded_first_again(tmp_path):
    from edgekd.models.fold import fold_batch_norms
    from edgekd.models.surgery import mark_folded

    loaded = net("test_resnet", 32)
    example = torch.zeros(2, 3, 32, 32)
    fold_batch_norms(loaded.module, example)
    mark_folded(loaded.module)
    model = smaller(loaded, 32)
    assert all(cut.after_fold for cut in cuts_of(model))
    save_model_dir(tmp_path, model, spec=loaded.architecture, classes=CLASSES,
                   preprocess=loaded.preprocess, folded=True)  # fmt: skip
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load(tmp_path)(x), model(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensors": {"nothing.weight": [1]}}, "nothing.weight cannot take this shape; got [1]"),
        ({"tensors": {"fc.weight": [6, 10**9]}}, "fc.weight cannot take this shape"),
        ({"tensors": {"fc.weight": [0, 4]}}, "fc.weight cannot take this shape"),
        ({"tensors": {"fc.weight": [24]}}, "fc.weight cannot take this shape"),
        ({"attributes": {"fc": {"in_features": 10**9}}}, "fc.in_features cannot be set"),
        ({"attributes": {"fc": {"forward": 1}}}, "fc.forward cannot be set"),
        ({"attributes": {"fc": {"training": 0}}}, "fc.training cannot be set"),
        ({"attributes": {"fc": {"_modules": 1}}}, "fc._modules cannot be set"),
        ({"attributes": {"no.such": {"groups": 1}}}, "does not have; got 'no.such'"),
        ({"skipped": [""]}, "would replace the whole network"),
        ({"skipped": ["no"]}, "does not have; got 'no'"),
        ({"ranks": {"fc": 10**9}}, "fc cannot have this rank; got 1000000000"),
        ({"ranks": {"fc": 0}}, "fc cannot have this rank"),
        ({"ranks": {"bn1": 1}}, "cannot have this rank"),
        ({"run": "rm"}, "surgery.0.run: Extra inputs are not permitted"),
        ({"attributes": {"fc": {"in_features": "import os"}}}, "surgery.0.attributes"),
    ],
)
def test_a_hostile_file_is_one_line(change, message, tmp_path):
    loaded = net("test_resnet", 32)
    folder = save(tmp_path, loaded.module, loaded)
    facts = json.loads((folder / "model.json").read_text())
    if "bn1" in change.get("ranks", {}):
        change = {
            "ranks": {next(n for n, m in loaded.module.named_modules() if isinstance(m, nn.BatchNorm2d)): 1}
        }
    facts["surgery"] = [change]
    (folder / "model.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError) as caught:
        load(folder)
    text = str(caught.value)
    assert message in text and "\n" not in text and text.startswith("recipe.yaml: teacher")


def test_weights_of_another_cut_do_not_fit(tmp_path):
    loaded = net("test_resnet", 32)
    folder = save(tmp_path, smaller(loaded, 32), loaded)
    facts = json.loads((folder / "model.json").read_text())
    facts["surgery"] = facts["surgery"][:1]
    (folder / "model.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="does not fit"):
        load(folder)


def test_a_cut_is_noted_on_copies():
    import copy

    module = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    replay_cuts(module, [Cut(ranks={"0": 2})], where="t")
    assert cuts_of(copy.deepcopy(module)) == (Cut(ranks={"0": 2}),)
    assert isinstance(module[0], nn.Sequential) and module(torch.zeros(1, 4)).shape == (1, 2)


def test_a_text_encoder_loses_heads_and_inner_width(text_folder, tmp_path):
    loaded = resolve_model(f"hf:{text_folder('bert', classes=6)}", classes=6, input=InputRecipe(max_length=16),
                           base=Path(), where="t", role="student")  # fmt: skip
    ids = torch.from_numpy(loaded.preprocess.example(2))
    groups, _ = find_unit_groups(loaded.module, ids)
    assert {group.kind for group in groups} == {"heads", "channels"}
    scores = unit_scores(loaded.module, groups, "l2")
    counts = counts_for(groups, 0.5, round_to=8, scope="uniform", scores=scores)
    model = pruned_copy(loaded.module, groups, counts, scores).eval()
    assert sum(p.numel() for p in model.parameters()) < 0.7 * sum(
        p.numel() for p in loaded.module.parameters()
    )
    with torch.no_grad():
        assert torch.equal(load(save(tmp_path / "a", model, loaded))(ids), model(ids))
