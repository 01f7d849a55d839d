"""What kind of network a table of operators is, so that what was published about such can be counted."""

from __future__ import annotations

from edgekd.profiles.estimation.op_table import OpTable

KINDS = ("mobile", "dense", "transformer", "text", "recurrent")


def network_kind(table: OpTable) -> str:
    """``mobile``: depthwise convolutions; ``dense``: others; ``transformer``: products of tokens; ``text``: and an
    embedding; ``recurrent``.
    """
    total = max(1.0, float(table.macs.sum()))
    share = {
        name: float(table.macs[table.of(name)].sum()) / total for name in ("recurrent", "conv-depthwise")
    }
    tokens = (
        float(table.macs[table.of("matmul-tokens")].sum() + table.macs[table.of("attention")].sum()) / total
    )
    if share["recurrent"] > 0.1:
        return "recurrent"
    if tokens > 0.4:
        return "text" if len(table.of("embedding")) else "transformer"
    depthwise, convolutions = len(table.of("conv-depthwise")), len(table.of("conv-1x1"))
    return "mobile" if depthwise > 2 and depthwise >= 0.1 * convolutions else "dense"
