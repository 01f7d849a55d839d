"""What quantization did to single layers: which went back to float and why, and what the others lose."""

from __future__ import annotations

from edgekd.report.format import MISSING, clean, percent, significant, weights_kind
from edgekd.report.schema import Report, StageFacts, StageQuantization
from edgekd.report.tables import Column, Table, text_column

_SHOWN = 15


def method_name(found: StageQuantization | None) -> str:
    """How a model was quantized, in a few words: ``QAT``, ``PTQ, SmoothQuant 0.5``, ``int4 weights, GPTQ``."""
    if found is None or found.method is None:
        return MISSING
    if found.algorithm is not None:
        return f"{weights_kind(found.scheme)}, {clean(found.algorithm).upper()}"
    name = clean(found.method).upper()
    return name if found.smooth is None else f"{name}, SmoothQuant {clean(str(found.smooth))}"


def quantized_stage(report: Report) -> StageFacts | None:
    """The stage that quantized; a run has at most one."""
    return next((stage for stage in report.stages if stage.quantization is not None), None)


def kept_layers_table(report: Report) -> Table:
    """Layers that stay in float for the answers' sake, with their cost."""
    stage = quantized_stage(report)
    kept = stage.quantization.kept_float if stage and stage.quantization else []
    columns = (
        text_column("layer"),
        Column("divergence (nats)"),
        Column("of all MACs"),
        text_column("reason"),
    )
    rows = [
        (clean(each.name), significant(each.kl) if each.kl is not None else MISSING, percent(each.macs_share, 1),
         clean(each.reason))
        for each in kept
    ]  # fmt: skip
    return Table("Layers kept in float for accuracy", columns, rows)


def zero_share_table(report: Report) -> Table:
    """The layers whose input loses most values to zero (CrossQuant's quantization kernel)."""
    stage = quantized_stage(report)
    shares = stage.quantization.zero_shares if stage and stage.quantization else {}
    worst = sorted(shares.items(), key=lambda pair: -pair[1])
    title = "Activations rounded to zero, by layer"
    if len(worst) > _SHOWN:
        title += f" (the {_SHOWN} highest of {len(worst)})"
    rows = [(clean(name), percent(share)) for name, share in worst[:_SHOWN]]
    return Table(title, (text_column("layer"), Column("share of its non-zero inputs")), rows)
