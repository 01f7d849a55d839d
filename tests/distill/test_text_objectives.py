"""Objectives on token networks: what they find, and that padding takes no part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgekd.distill.attention_sites import find_attentions, match_attention
from edgekd.distill.features import FeatureCapture, match_embeddings
from edgekd.distill.loss import DistillationLoss
from edgekd.distill.objectives.base import Outputs
from edgekd.distill.objectives.minilm import minilm_loss
from edgekd.distill.objectives.minilm_v2 import relation_heads
from edgekd.distill.relations import log_relation, split_heads
from edgekd.errors import PreconditionError, RecipeError
from edgekd.models.resolve import resolve_model
from edgekd.recipe import InputRecipe
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe
from edgekd.students.derive import Smaller, derive_student


def load(folder):
    return resolve_model(f"hf:{folder}", classes=3, input=InputRecipe(max_length=16), base=Path(), where="x",
                         role="student")  # fmt: skip


def example(model):
    return torch.from_numpy(model.preprocess.example(2))


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("bert", "encoder.encoder.layer.3.attention.self.query"),
        ("distilbert", "encoder.transformer.layer.3.attention.q_lin"),
        ("electra", "encoder.encoder.layer.3.attention.self.query"),
        ("mpnet", "encoder.encoder.layer.3.attention.attn.q"),
        ("deberta-v2", "encoder.encoder.layer.3.attention.self.query_proj"),
    ],
)
def test_attention_is_found_without_names(text_folder, kind, last):
    model = load(text_folder(kind))
    found = find_attentions(model.module, example(model))
    assert len(found) == 4 and all(each.heads == 4 for each in found)
    query, key, value = (source.module for source in found[-1].sources)
    assert query == last
    assert len({query, key, value}) == 3 and {query[:25], key[:25], value[:25]} == {last[:25]}
    assert [name.rpartition(".")[2][0] for name in (query, key, value)] == ["q", "k", "v"]


class Fused(nn.Module):
    """One matrix for query, key and value, and the fused operator."""

    def __init__(self, width=12, heads=3):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        self.seen = (q * (width // self.heads) ** -0.5) @ k.transpose(-1, -2)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))


def test_query_key_and_value_in_one_matrix():
    torch.manual_seed(0)
    net, x = Fused(), torch.randn(2, 5, 12)
    (found,) = find_attentions(net, x)
    assert [source.part for source in found.sources] == [0, 1, 2] and found.heads == 3
    with FeatureCapture(net, ["qkv"]) as capture:
        net(x)
        (whole,) = capture.take()
    query, key, _ = (split_heads(source.of(whole), 3) for source in found.sources)
    assert torch.allclose(log_relation(query, key, None), net.seen.log_softmax(-1), atol=1e-5)


def test_relation_is_the_models_own_attention(text_folder):
    model = load(text_folder())
    ids = torch.from_numpy(model.preprocess(["the oil price rose in the gulf", "grain"]))
    attention = find_attentions(model.module, example(model))[-1]
    names = [source.module for source in attention.sources]
    with FeatureCapture(model.module, names) as capture, torch.no_grad():
        model.module(ids)
        query, key, _ = (split_heads(each, 4) for each in capture.take())
        given = {"attention_mask": model.module._mask(ids != 0), "token_type_ids": torch.zeros_like(ids)}
        expected = model.module.encoder(input_ids=ids, output_attentions=True, **given).attentions[-1]
    relation = log_relation(query, key, ids != 0).exp()
    assert torch.allclose(relation, expected, atol=1e-5)


def losses(student, teacher, objectives, ids):
    loss = DistillationLoss(
        {name: ObjectiveRecipe(**each) for name, each in objectives.items()}, TrainRecipe()
    )
    loss.bind(student.module, teacher.module, example(student))
    ours = FeatureCapture(student.module, [name for name, _ in loss.pairs])
    theirs = FeatureCapture(teacher.module, [name for _, name in loss.pairs])
    with ours as mine, theirs as its:
        logits, other = student.module(ids), teacher.module(ids).detach()
        outputs = Outputs(
            logits, other, student_features=mine.take(), teacher_features=its.take(), tokens=ids != 0
        )
    return loss, *loss(outputs)


ALL = {"hidden": {}, "embedding": {}, "minilm-v2": {}, "kd": {}}


@torch.no_grad()
def apart(module):
    """Sharper attention and logits: the divergence of two nearly equal distributions is mostly rounding."""
    for name, parameter in module.named_parameters():
        if "query" in name or "key" in name:
            parameter.mul_(3)
        elif name.startswith("head"):
            parameter.mul_(30)


@pytest.mark.parametrize("width", [None, 16])
def test_longer_padding_changes_no_loss_and_all_learn(text_folder, width):
    teacher = load(text_folder())
    student = derive_student(teacher, Smaller(layers=2, width=width), "x")
    apart(student.module)
    ids = torch.from_numpy(teacher.preprocess(["the oil price rose in the gulf", "grain"]))
    loss, total, parts = losses(student, teacher, ALL, ids)
    assert len(loss.adapters) == (0 if width is None else 3)
    _, _, padded = losses(student, teacher, ALL, torch.cat([ids, torch.zeros(2, 4, dtype=torch.long)], dim=1))
    for name in ALL:
        assert padded[name].item() == pytest.approx(parts[name].item(), rel=1e-5, abs=1e-8)
    assert all(parts[name] > 0 for name in ALL if width or name != "embedding")
    if width is None:
        assert parts["embedding"].item() == pytest.approx(0, abs=1e-9)  # inherited whole
    total.backward()
    query = student.module.encoder.encoder.layer[-1].attention.self.query.weight
    assert query.grad.abs().sum() > 0
    assert all(each.weight.grad.abs().sum() > 0 for each in loss.adapters.values())
    assert all(parameter.grad is None for parameter in teacher.module.parameters())


def test_which_modules_are_compared(text_folder):
    teacher = load(text_folder())
    student = derive_student(teacher, Smaller(layers=2), "x")
    stack = "encoder.encoder.layer"
    loss, *_ = losses(student, teacher, {"hidden": {}}, example(teacher))
    assert loss.pairs == [(f"{stack}.1", f"{stack}.3"), (f"{stack}.0", f"{stack}.1")]
    assert match_embeddings(student.module, teacher.module, example(teacher)) == [
        ("encoder.embeddings", "encoder.embeddings")
    ]
    single = derive_student(teacher, Smaller(layers=1), "x")
    loss, *_ = losses(single, teacher, {"hidden": {}, "embedding": {}}, example(teacher))
    assert loss.pairs == [(f"{stack}.0", f"{stack}.3"), ("encoder.embeddings", "encoder.embeddings")]
    pair = match_attention(student.module, teacher.module, example(teacher), [(f"{stack}.0", f"{stack}.2")])
    assert pair.modules[2] == (f"{stack}.0.attention.self.value", f"{stack}.2.attention.self.value")


def test_a_hidden_layer_of_another_width_learns_through_its_map(text_folder):
    """What two networks of different widths cannot answer alike, a trained map makes alike."""
    teacher = load(text_folder())
    student = derive_student(teacher, Smaller(layers=2, width=16), "x")
    ids = example(teacher)
    loss, first, _ = losses(student, teacher, {"hidden": {}}, ids)
    optimizer = torch.optim.Adam([*student.module.parameters(), *loss.adapters.parameters()], lr=0.02)
    with (
        FeatureCapture(student.module, [name for name, _ in loss.pairs]) as mine,
        FeatureCapture(teacher.module, [name for _, name in loss.pairs]) as its,
    ):
        for _ in range(60):
            teacher.module(ids)
            outputs = Outputs(student.module(ids), student_features=mine.take(), teacher_features=its.take())
            total, _ = loss(outputs)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    assert total < 0.3 * first


def test_minilm_wants_equal_heads(text_folder):
    teacher = load(text_folder())
    student = derive_student(teacher, Smaller(layers=2, width=16), "x")
    with pytest.raises(PreconditionError, match="got 'student 2, teacher 4'; use minilm-v2"):
        losses(student, teacher, {"minilm": {}}, example(teacher))
    _, total, _ = losses(
        derive_student(teacher, Smaller(layers=2), "x"), teacher, {"minilm": {}}, example(teacher)
    )
    assert total > 0


def test_values_alone_are_compared_as_well():
    generator = torch.Generator().manual_seed(0)
    q, k, v, other = (torch.randn(2, 4, 8, generator=generator) for _ in range(4))
    assert minilm_loss([q, k, v], [q, k, v], heads=(2, 2)).item() == pytest.approx(0, abs=1e-6)
    assert minilm_loss([q, k, other], [q, k, v], heads=(2, 2)) > 0.01
    assert minilm_loss([q, other, v], [q, k, v], heads=(2, 2)) > 0.01


def test_relation_heads_cut_both_widths():
    assert (
        relation_heads(384, 384) == 48 and relation_heads(192, 384) == 48 and relation_heads(312, 768) == 24
    )


def test_a_network_without_attention_is_told():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    with pytest.raises(RecipeError, match="the student has no attention whose operands are linear layers"):
        match_attention(net, net, torch.zeros(2, 5, 4))
