"""What text models make of the length of their input is known before any training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.text_lengths import check_lengths
from edgekd.preprocess_text import TextPreprocess


class Net(nn.Module):
    """Token vectors, their mean over the tokens that are none of padding, logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.out = nn.Embedding(200, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        real = (ids != 0).float().unsqueeze(-1)
        return self.out((self.vectors(ids) * real).sum(1) / real.sum(1))

    def vectors(self, ids: Tensor) -> Tensor:
        return self.words(ids)


class Frozen(Net):
    """Positions by a Python number."""

    def vectors(self, ids: Tensor) -> Tensor:
        return self.words(ids) + torch.arange(int(ids.shape[1]))[:, None].float() * 0.1


class Scaled(Net):
    """A trace takes the length for a constant and notices nothing."""

    def vectors(self, ids: Tensor) -> Tensor:
        return self.words(ids) * float(len(ids[0].tolist()))


class Leaking(Net):
    """A convolution over tokens sees the padding beside the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(8, 8, 3, padding=1)

    def vectors(self, ids: Tensor) -> Tensor:
        return self.mix(self.words(ids).transpose(1, 2)).transpose(1, 2)


@pytest.fixture
def preprocess(tokenizer_json: str) -> TextPreprocess:
    return TextPreprocess.from_content(tokenizer_json, max_length=32, where="x")


@pytest.mark.parametrize("net", [Frozen, Scaled])
def test_a_length_that_a_trace_freezes_is_refused(net: type[Net], preprocess: TextPreprocess) -> None:
    with pytest.raises(
        ModelError, match=r"^recipe: teacher: the encoder's code freezes the sequence length"
    ) as caught:
        check_lengths(net().eval(), preprocess, "recipe: teacher")
    assert "\n" not in str(caught.value)


def test_padding_that_moves_the_answer_is_a_note(preprocess: TextPreprocess) -> None:
    (note,) = check_lengths(Leaking().eval(), preprocess, "x")
    assert "lets padding into its answer" in note


def test_others_pass(preprocess: TextPreprocess) -> None:
    net = Net().train()
    assert check_lengths(net, preprocess, "x") == []
    assert net.training
