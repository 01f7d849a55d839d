"""Embedding tables in integers: half of a small text model's bytes.

The file holds the table as int8 and turns the rows that were looked up into float, so a table costs a
quarter of its bytes and nothing in time. One scale for each column, symmetric: words that are rare keep the
resolution of the frequent ones, and the columns of large values do not cost the others theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.quant.fake_quant import WeightFakeQuant
from edgekd.quant.kernels import fake_quantize_table

_SMALLEST = 1 << 14  # values; a smaller table is not worth its rounding


class TableFakeQuant(WeightFakeQuant):
    """Parametrization of an embedding's weight ``(rows, width)``: fake-quant with one scale a column."""

    axis = 1

    def scale(self, weight: Tensor) -> Tensor:
        """``(width,)`` float32, detached."""
        return super().scale(weight.t())

    def forward(self, weight: Tensor) -> Tensor:
        return fake_quantize_table(weight, self.scale(weight)) if self.enabled else weight


def quantize_tables(model: nn.Module, weight_max: int, float_layers: Collection[str] = ()) -> list[str]:
    """Register fake-quant on every large embedding; returns their names."""
    found = [name for name in large_tables(model) if name not in float_layers]
    for name in found:
        table = model.get_submodule(name)
        parametrize.register_parametrization(table, "weight", TableFakeQuant(weight_max), unsafe=True)
    return found


def large_tables(model: nn.Module) -> list[str]:
    """Names of the embeddings that are worth it. A table that another layer uses as well (tied weights) is not."""
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    found = []
    for name, table in list(model.named_modules()):
        if not isinstance(table, nn.Embedding) or parametrize.is_parametrized(table):
            continue
        if table.weight.numel() >= _SMALLEST and uses[id(table.weight)] == 1:
            found.append(name)
    return found
