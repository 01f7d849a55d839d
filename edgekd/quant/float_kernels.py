"""Float operations between integers, summed and rounded as ONNX Runtime 1.31 does it on x86.

A last bit that differs moves a value to the next integer now and then, and a network that was never trained turns that
into another answer. Of what a transformer keeps in float, attention's products come out the same in torch; layer norm,
softmax and GELU do not. Formulas: MLAS, ``layernorm_kernel_avx2``, ``TransKernelAvx512F``, ``gelu_avx512f``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LANES = 8
_CACHED = 2**14  # values whose steps stay in a core's cache


def _singles(*values: float) -> tuple[float, ...]:
    """Rounded to float32."""
    return tuple(torch.tensor(values, dtype=torch.float32).tolist())


_LOG2_E, _LN_2_HIGH, _LN_2_LOW = _singles(1.44269504088896341, -6.93145752e-1, -1.42860677e-6)
(_EXP_LEAST,) = _singles(-103.9720840454)
_EXP_HEX = "0x1.694p-10", "0x1.125edcp-7", "0x1.555b5ap-5", "0x1.55545p-3", "0x1.fffff6p-2"
_EXP = (*map(float.fromhex, _EXP_HEX), 1.0, 1.0)
_ERF_MOST, _ERF_SPLIT = _singles(3.925, 0.921875)
_ERF_SMALL = _singles(
    -5.99104969e-4, 4.99339588e-3, -2.67667342e-2, 1.12818025e-1, -3.76124859e-1, 1.28379151e-1
)
_ERF_LARGE = _singles(1.72948930e-5, -3.83208680e-4, 3.88393435e-3, -2.42545605e-2, 1.06777847e-1, 6.34846687e-1,
                      1.28717512e-1)  # fmt: skip
_ERF_EXP = _singles(1.38319808e-3, 8.37550033e-3, 4.16689515e-2, 1.66664466e-1, 4.99999851e-1, 1.0, 1.0)


def layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Over the last axis: the mean in float64, squares in eight float32 sums."""
    size = x.shape[-1]
    if len(shape) > 1 or x.dtype != torch.float32 or size < _LANES:
        return torch.nn.functional.layer_norm(x, shape, weight, bias, eps)
    centered = x - (x.double().sum(-1, keepdim=True) / size).float()
    whole = size - size % _LANES
    lanes = centered[..., :whole].unflatten(-1, (-1, _LANES)).double()
    squares = lanes * lanes
    total = torch.zeros_like(lanes[..., 0, :])
    for k in range(whole // _LANES):
        total = (total + squares[..., k, :]).float().double()
    total = _halves(total.float())
    for k in range(whole, size):
        total = total + centered[..., k] * centered[..., k]
    # By way of float64: torch's own square root in float32 is off by a bit now and then.
    inverse = 1.0 / (total / size + torch.tensor(eps, dtype=torch.float32)).double().sqrt().float()
    normal = centered * inverse.unsqueeze(-1)
    if weight is None:
        return normal
    return normal * weight if bias is None else _fused(normal, weight, bias)


def _halves(lanes: Tensor) -> Tensor:
    """The sum over the last axis, one half added to the other until one is left."""
    while lanes.shape[-1] > 1:
        first, second = lanes.chunk(2, -1)
        lanes = first + second
    return lanes[..., 0]


def _fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a * b + c`` in float32, rounded once."""
    return (a.double() * b.double() + c.double()).float()


def softmax(x: Tensor, dim: int = -1, **options: Any) -> Tensor:
    """Over the last axis: a polynomial for the exponential, sixteen sums, one product with their reciprocal."""
    options.pop("_stacklevel", None)  # where ``nn.Softmax`` would have a warning point to
    if dim not in (-1, x.ndim - 1) or x.dtype != torch.float32 or any(options.values()):
        return torch.nn.functional.softmax(x, dim, **options)
    rows = x.reshape(-1, x.shape[-1]).split(max(1, _CACHED // x.shape[-1]))
    return torch.cat([_softmax(each) for each in rows]).reshape(x.shape)


def _softmax(x: Tensor) -> Tensor:
    powers = _exponential((x - x.amax(-1, keepdim=True)).clamp_min_(_EXP_LEAST), _EXP)
    padded = torch.nn.functional.pad(powers, (0, -powers.shape[-1] % (2 * _LANES)))
    total = torch.zeros_like(padded[:, : 2 * _LANES])
    for lanes in padded.split(2 * _LANES, -1):
        total = total + lanes
    total = total[:, :_LANES] + total[:, _LANES:]
    while total.shape[-1] > 1:
        total = total[:, ::2] + total[:, 1::2]
    return powers * (1.0 / total)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Two polynomials for the error function."""
    if approximate != "none" or x.dtype != torch.float32:
        return torch.nn.functional.gelu(x, approximate=approximate)
    return torch.cat([_gelu(each) for each in x.reshape(-1).split(_CACHED)]).reshape(x.shape)


def _gelu(x: Tensor) -> Tensor:
    scaled = x * torch.tensor(0.5**0.5, dtype=torch.float32)
    size = scaled.abs().clamp_max(_ERF_MOST)
    small = _fused(_polynomial(size * size, _ERF_SMALL), size, size)
    large = size.where(size > _ERF_SPLIT, 0.0)
    exponent = -_fused(_polynomial(large, _ERF_LARGE), large, large)
    large = 1.0 - _exponential(exponent, _ERF_EXP)
    erf = torch.where(size > _ERF_SPLIT, large, small).copysign(scaled)
    return (0.5 * x) * (erf + 1.0)


def _exponential(x: Tensor, factors: tuple[float, ...]) -> Tensor:
    """``2**k`` times a polynomial of what is left."""
    wide = x.double()
    k = (wide * _LOG2_E).round_()
    rest = (k * _LN_2_HIGH + wide).float().double()
    rest = (k * _LN_2_LOW + rest).float()
    return (_polynomial(rest, factors).double() * k.exp2_()).float()


def _polynomial(x: Tensor, factors: tuple[float, ...]) -> Tensor:
    """Horner's scheme of fused multiply-adds, the highest power first."""
    wide, single = x.double(), torch.empty_like(x)
    value = torch.full_like(wide, factors[0])
    for factor in factors[1:]:
        value.mul_(wide).add_(factor)
        value.copy_(single.copy_(value))
    return single.copy_(value)


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    """As it is exported, in three steps: the root of ``scale`` once for each factor, which the runtime makes one number
    behind the first product."""
    if is_causal or any(options.values()) or (attn_mask is not None and attn_mask.dtype == torch.bool):
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **options
        )
    root = torch.tensor((query.shape[-1] ** -0.5 if scale is None else scale) ** 0.5, dtype=torch.float32)
    scores = (query @ key.transpose(-2, -1)) * (root * root)
    if attn_mask is not None:
        scores = scores + attn_mask
    return softmax(scores) @ value


# Of one tensor, value by value.
FLOAT_TABLES = frozenset({"gelu"})
# By the name that :mod:`edgekd.models.calls` gives the call.
FLOAT_KERNELS: dict[str, Callable[..., Tensor]] = {
    "gelu": gelu,
    "layer_norm": layer_norm,
    "scaled_dot_product_attention": attention,
    "softmax": softmax,
}
