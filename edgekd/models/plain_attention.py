"""``nn.MultiheadAttention`` taken apart into linear layers and one attention, so that masks and integers reach them.

PyTorch's own holds the weights of three linear layers as one parameter that no layer calls, and its encoder layers
run in one fused operator in eval mode, which no exporter knows. torchvision's ViT and most hand-written
transformers are built from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, skip_init

from edgekd.models.layer_calls import removing

_TOLERANCE = 1e-4  # of the largest answer: sums in another order


class PlainAttention(nn.Module):
    """What ``nn.MultiheadAttention`` computes (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2), by its arguments.

    The second answer, the attention's shares, is always None.

    Args:
        own: whose weights are copied.
        packed: query, key and value are always the same tensor: one linear layer makes all three.
    """

    in_proj_bias = None  # torch's encoder layers look here and then leave their fused operator alone
    _qkv_same_embed_dim = False

    def __init__(self, own: nn.MultiheadAttention, *, packed: bool) -> None:
        super().__init__()
        self.batch_first, self.num_heads, self.dropout = own.batch_first, own.num_heads, own.dropout
        biases = [None] * 3 if own.in_proj_bias is None else own.in_proj_bias.chunk(3)
        if own._qkv_same_embed_dim:
            assert own.in_proj_weight is not None
            weights = list(own.in_proj_weight.chunk(3))
        else:
            weights = [own.q_proj_weight, own.k_proj_weight, own.v_proj_weight]
        self.packed = packed
        if packed:
            self.qkv = _linear(torch.cat(weights), own.in_proj_bias)
        else:
            self.q, self.k, self.v = map(_linear, weights, biases)
        self.out_proj = _linear(own.out_proj.weight, own.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """Shapes and masks as in torch; ``is_causal`` only says what ``attn_mask`` holds."""
        if not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        batch, length = query.shape[:2]
        if self.packed:
            together = self.qkv(query).reshape(batch, length, 3, self.num_heads, -1)
            q, k, v = together.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = map(self._heads, (self.q(query), self.k(key), self.v(value)))
        mask = None
        if attn_mask is not None:
            mask = _added(attn_mask, q)
            mask = mask.reshape(batch, self.num_heads, *mask.shape[1:]) if mask.ndim == 3 else mask
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, q)[:, None, None, :]
            mask = padding if mask is None else mask + padding
        found = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        answer: Tensor = self.out_proj(found.transpose(1, 2).reshape(batch, length, -1))
        return answer if self.batch_first else answer.transpose(0, 1), None

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """No random number is drawn for it."""
    layer = skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer.to(weight.device)


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """What is added to the scores; of a boolean mask True means: not this one."""
    return mask.to(like.dtype) * torch.finfo(like.dtype).min if mask.dtype == torch.bool else mask


@contextmanager
def without_fast_path() -> Iterator[None]:
    """torch's transformer layers do what they do in training also in eval mode, operator by operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@torch.no_grad()
def plain_attentions(module: nn.Module, example: Tensor) -> list[str]:
    """Replace every ``nn.MultiheadAttention`` of ``module`` in place; its function in eval mode stays the same.

    One is left alone that adds keys or values of its own, holds parametrizations, does not run, or answers otherwise.

    Args:
        module: in eval mode.
        example: one batch that it takes.

    Returns:
        The names of the replaced layers.
    """
    found = {
        name: layer for name, layer in module.named_modules()
        if type(layer) is nn.MultiheadAttention and layer.bias_k is None and not layer.add_zero_attn
        and not any(map(parametrize.is_parametrized, layer.modules()))
    }  # fmt: skip
    if not found:
        return []
    calls: dict[str, list[tuple[Any, Any, Tensor]]] = {name: [] for name in found}

    def hook(name: str) -> Any:
        return lambda layer, args, kwargs, answer: calls[name].append((args, kwargs, answer[0]))

    handles = [layer.register_forward_hook(hook(name), with_kwargs=True) for name, layer in found.items()]
    with removing(handles), without_fast_path():
        expected = module(example)
    replaced = []
    for name, layer in found.items():
        packed = all(_alike(*args, **kwargs) for args, kwargs, _ in calls[name])
        plain = PlainAttention(layer, packed=packed and layer._qkv_same_embed_dim).train(layer.training)
        if not calls[name] or not all(_same(plain, *call) for call in calls[name]):
            continue
        if _whole(module, name, plain, example, expected):
            replaced.append(name)
    return replaced


def _alike(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> bool:
    return query is key and key is value


def _same(plain: PlainAttention, args: Any, kwargs: Any, answer: Tensor) -> bool:
    try:
        return _close(plain(*args, **kwargs)[0], answer)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False


def _whole(module: nn.Module, name: str, plain: PlainAttention, example: Tensor, expected: Any) -> bool:
    """Put it in; out again where ``module`` reads what it does not give, such as the attention's shares."""
    own = module.get_submodule(name)
    module.set_submodule(name, plain)
    try:
        with without_fast_path():
            answer = module(example)
        if not isinstance(expected, Tensor) or _close(answer, expected):
            return True
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        pass
    module.set_submodule(name, own)
    return False


def _close(answer: Tensor, expected: Tensor) -> bool:
    return bool((answer - expected).abs().max() <= _TOLERANCE * expected.abs().max().clamp_min(1e-6))
