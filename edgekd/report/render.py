"""A finished run's ``report.html`` and ``report.md``, from its ``report.json``."""

from __future__ import annotations

from pathlib import Path

from edgekd.artifact import write_text
from edgekd.report.html import render_html
from edgekd.report.load import load_report
from edgekd.report.markdown import render_markdown


def render_run(run_dir: Path) -> tuple[Path, Path]:
    """Write both beside ``report.json``, atomically; returns ``(report.html, report.md)``.

    Raises:
        UserInputError: there is no readable ``report.json``.
        OutputError: the folder cannot be written or the disk is full.
    """
    report = load_report(run_dir)
    recipe = run_dir / "recipe.yaml"
    recipe_yaml = recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else None
    page, text = run_dir / "report.html", run_dir / "report.md"
    write_text(page, render_html(report, recipe_yaml=recipe_yaml))
    write_text(text, render_markdown(report))
    return page, text
