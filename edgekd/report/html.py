"""``report.html``: one file with its style and pictures inside. No script, nothing fetched, safe to mail."""

from __future__ import annotations

from importlib import resources

from edgekd.report.curves import curves_caption, curves_picture
from edgekd.report.elements import figure, kind_tag, operator_bars, section, table_block
from edgekd.report.evidence import (
    float_layers_table,
    guarantees_table,
    origin_table,
    skipped_table,
    stage_notes,
    variants_table,
)
from edgekd.report.facts import all_warnings, device_name, files_of, is_label_free
from edgekd.report.format import listing
from edgekd.report.headline import subtitle, tiles, title
from edgekd.report.latency_chart import latency_chart
from edgekd.report.layers import kept_layers_table, zero_share_table
from edgekd.report.markup import Markup, join, tag
from edgekd.report.pictures import latency_picture, size_picture
from edgekd.report.schema import Report
from edgekd.report.schema_deployed import DeployFacts
from edgekd.report.tables import files_table, latency_table, stages_table
from edgekd.report.verdict import verdicts

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MARKS = {"bad": "✕", "warn": "!", "good": "✓", "note": "i"}


def render_html(report: Report, *, recipe_yaml: str | None = None) -> str:
    """The whole page. ``recipe_yaml`` is shown as it is, folded away."""
    style = Markup(resources.files("edgekd.report").joinpath("style.css").read_text(encoding="utf-8"))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"edgekd: {title(report)}"),
        tag("style", style),
    )
    sections = [
        _header(report),
        _verdicts(report),
        _pictures(report),
        _stages(report),
        _curves(report),
        *(_latency(report, entry) for entry in report.deploy),
        _guarantees(report),
        _warnings(report),
        _origin(report, recipe_yaml),
    ]
    page = tag("html", head, tag("body", tag("main", *sections)), lang="en")
    return f"<!doctype html>\n{page}\n"


def _header(report: Report) -> Markup:
    parts = [
        tag("p", "edgekd report", class_="eyebrow"),
        tag("h1", title(report)),
        tag("p", subtitle(report), class_="subtitle"),
    ]
    for entry in report.deploy:
        if len(report.deploy) > 1:
            parts.append(tag("h2", device_name(entry), class_="device"))
        shown = []
        for tile in tiles(report, entry):
            label = tag("div", tile.name, kind_tag(tile.kind) if tile.kind else None, class_="tile-name")
            alarm = tag("div", tile.alarm, class_="tile-detail alarm") if tile.alarm else None
            details = [tag("div", text, class_="tile-detail") for text in tile.details]
            value = tag("div", tile.value, class_="tile-value")
            shown.append(tag("div", label, value, alarm, *details, class_="tile bad" if alarm else "tile"))
        parts.append(tag("div", *shown, class_="tiles"))
    return tag("header", *parts)


def _verdicts(report: Report) -> Markup | None:
    found = verdicts(report)
    items = [
        tag(
            "li",
            tag("span", _MARKS[verdict.level], class_="sign", aria_hidden="true"),
            tag("span", verdict.text),
            class_=verdict.level,
        )
        for verdict in found
    ]
    return tag("ul", *items, class_="verdicts") if items else None


def _pictures(report: Report) -> Markup | None:
    what = "Agreement" if is_label_free(report) else "Accuracy"
    figures = [
        figure(
            size_picture(report),
            "A stage's size is that of its fp32 weights, 4 bytes each; a file's size is the file. "
            "The dashed line follows the student from stage to stage.",
            f"{what} and size",
        )
    ]
    for entry in report.deploy:
        files = files_of(report, entry)
        names = listing([file.label for file in files])
        caption = f"A circle's area is its file's size: {names}. A line through it: the range of its p50."
        borrowed = listing([file.label for file in files if not file.evaluated])
        if borrowed:
            caption += f" The score of {borrowed} is that of its PyTorch stage."
        heading = f"{what} and latency: {device_name(entry)}"
        figures.append(figure(latency_picture(report, entry), caption, heading))
    drawn = [found for found in figures if found is not None]
    return section("What it bought", tag("div", *drawn, class_="figures two")) if drawn else None


def _stages(report: Report) -> Markup:
    notes: list[Markup] = []
    for stage in report.stages:
        if told := stage_notes(stage):
            notes += [tag("dt", stage.name), *(tag("dd", note) for note in told)]
    lead = (
        "Each stage's model in PyTorch on the test split. "
        "ECE: expected calibration error, 15 bins. NLL: negative log-likelihood."
    )
    return section(
        "Stages",
        table_block(stages_table(report)),
        tag("dl", *notes, class_="notes") if notes else None,
        *(
            table_block(table)
            for table in (kept_layers_table(report), zero_share_table(report))
            if table.rows
        ),
        lead=lead,
    )


def _curves(report: Report) -> Markup | None:
    drawn = [figure(curves_picture(stage), curves_caption(stage), stage.name) for stage in report.stages]
    figures = [found for found in drawn if found is not None]
    lead = "Each picture has its own scale."
    return section("Training", tag("div", *figures, class_="figures three"), lead=lead) if figures else None


def _latency(report: Report, entry: DeployFacts) -> Markup:
    heading = f"Latency on {device_name(entry)}"
    caption = (
        "Bar: p50. Line: on to p90 and p99. Thin bar below: p50 of the quickest to the slowest round, "
        "or an estimate's range. Dashed and ~: not measured."
    )
    picture = figure(latency_chart(report, entry), caption)
    if picture is None:
        picture = tag("p", "No latency: the file was neither measured nor estimated.", class_="none")
    columns = tag("div", picture, operator_bars(entry), class_="figures two")
    rows = latency_table(report, entry)
    measured = table_block(rows) if rows.rows else None
    tried = [table_block(t) for t in (variants_table(entry), float_layers_table(entry)) if t.rows]
    return section(heading, columns, measured, table_block(files_table(report, entry)), *tried)


def _guarantees(report: Report) -> Markup | None:
    checks, left_out = guarantees_table(report), skipped_table(report)
    if not checks.rows and not left_out.rows:
        return None
    rest = table_block(left_out) if left_out.rows else None
    lead = "Read in the written ONNX file and in the graph that the runtime makes of it."
    return section("2:4, integer kernels, parity", table_block(checks), rest, lead=lead)


def _warnings(report: Report) -> Markup:
    found = all_warnings(report)
    if not found:
        return section("Warnings", tag("p", "None.", class_="none"))
    return section("Warnings", tag("ul", *(tag("li", text) for text in found), class_="warnings"))


def _origin(report: Report, recipe_yaml: str | None) -> Markup:
    table = origin_table(report)
    pairs = [tag("div", tag("dt", name), tag("dd", value)) for name, value in table.rows]
    # The recipe keeps its line breaks, so each line is cleaned and escaped on its own.
    recipe = None
    if recipe_yaml is not None:
        code = Markup("\n".join(join(line) for line in recipe_yaml.splitlines()))
        recipe = tag("details", tag("summary", "The recipe, resolved and complete"), tag("pre", code))
    return section("How it was made", tag("dl", *pairs, class_="origin"), recipe)
