"""The blocks that the page is made of."""

from __future__ import annotations

from edgekd.report.facts import slowest_operators
from edgekd.report.format import MISSING, percent, significant
from edgekd.report.markup import Markup, tag
from edgekd.report.schema_deployed import DeployFacts
from edgekd.report.tables import Table


def section(heading: str, *children: object, lead: str | None = None) -> Markup:
    """``lead`` is the sentence under the heading."""
    return tag("section", tag("h2", heading), tag("p", lead, class_="lead") if lead else None, *children)


def kind_tag(kind: str) -> Markup:
    """``measured``, ``emulated`` or ``estimated``, told apart at a glance."""
    return tag("span", kind, class_=f"tag {kind}")


def figure(picture: Markup | None, caption: str, heading: str | None = None) -> Markup | None:
    """A picture with its caption; ``None`` without a picture."""
    if picture is None:
        return None
    name = tag("h3", heading) if heading else None
    return tag("figure", name, picture, tag("figcaption", caption))


def operator_bars(entry: DeployFacts) -> Markup | None:
    """The slowest operators, the slowest first; ``None`` where the run has none."""
    if not entry.operators:
        return None
    operators = slowest_operators(entry)
    largest = operators[0].mean_us or 1.0
    rows = []
    for op in operators:
        bar = tag("span", class_="fill", style=f"width:{100 * op.mean_us / largest:.1f}%")
        value = tag(
            "span", tag("b", f"{significant(op.mean_us)} µs"), f" {percent(op.share, 1)}", class_="op-value"
        )
        name = tag("span", op.name, " ", tag("i", op.op_type), class_="op-name")
        rows.append(tag("li", tag("span", name, value, class_="op-line"), tag("span", bar, class_="track")))
    what = tag(
        "figcaption", "Of the deployed file, one inference, with the profiler on: read shares, not sums."
    )
    return tag("figure", tag("h3", "Slowest operators"), tag("ol", *rows, class_="operators"), what)


def table_block(table: Table) -> Markup:
    """A table that scrolls inside its own box where the page is too narrow for it."""
    head = tag(
        "tr", *(tag("th", column.name, class_=f"col-{column.kind}", scope="col") for column in table.columns)
    )
    rows = []
    for index, row in enumerate(table.rows):
        cells = [_cell(column.kind, cell) for column, cell in zip(table.columns, row, strict=True)]
        rows.append(tag("tr", *cells, class_="strong" if index in table.emphasised else None))
    body = tag("table", tag("caption", table.title), tag("thead", head), tag("tbody", *rows))
    return tag("div", body, class_="scroll", tabindex=0, role="region", aria_label=table.title)


def _cell(kind: str, text: str) -> Markup:
    content = kind_tag(text) if kind == "tag" and text != MISSING else text
    long = " long" if kind == "text" and len(text) > 36 else ""
    return tag("td", content, class_=f"col-{kind}{long}")
