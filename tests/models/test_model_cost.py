"""Parameters and multiply-accumulates against published and hand-counted figures."""

from __future__ import annotations

import timm
import torch
from torch import nn
from torch.nn.utils import parametrize

from edgekd.models.cost import count_macs, measure_cost


def test_resnet18_has_its_published_cost():
    cost = measure_cost(timm.create_model("resnet18"), (3, 224, 224))
    assert 1.81e9 < cost.macs < 1.825e9
    assert cost.params == 11_689_512


def test_small_network_by_hand():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 10*10 places, 8 * 3*3*3 each
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),  # 5*5 places, 8 * 3*3 each
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(200, 4),
    ).train()
    cost = measure_cost(module, (3, 10, 10))
    assert cost.macs == 100 * 216 + 25 * 72 + 800
    assert cost.params == 216 + 8 + 72 + 16 + 804
    assert cost.nonzero_params == cost.params - 8  # a fresh batch norm's shift is zero
    assert module.training


def test_attention_is_counted():
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = x.flatten(2).transpose(1, 2)[:, None]
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    assert count_macs(Attention(), (3, 4, 4)) == 2 * 16 * 16 * 3


def test_transformer_encoder_fast_path_is_counted():
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.flatten(2).transpose(1, 2))

    tokens = 16
    assert count_macs(Encoder(), (8, 4, 4)) == tokens * (4 * 8 * 8 + 2 * 8 * 16) + 2 * tokens * tokens * 8


def test_a_mask_lowers_the_nonzero_count_alone():
    class KeepHalf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(7))  # belongs to the training, not to the model

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * (torch.arange(weight.shape[1]) % 2)

    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    before = measure_cost(module, (3, 2, 2))
    parametrize.register_parametrization(module[1], "weight", KeepHalf())
    after = measure_cost(module, (3, 2, 2))
    assert after.params == before.params == 65
    assert after.nonzero_params == 30 + 5
    assert after.macs == before.macs == 60


def test_shared_weights_count_once():
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[1].weight
    assert measure_cost(module, (1, 2, 2)).params == 16 + 8
