"""report.json and what is drawn from it: a page, Markdown, the terminal, a comparison of runs."""

from __future__ import annotations

from edgekd.report.html import render_html
from edgekd.report.load import load_report, write_report
from edgekd.report.markdown import render_markdown
from edgekd.report.render import render_run
from edgekd.report.schema import Report

__all__ = ["Report", "load_report", "render_html", "render_markdown", "render_run", "write_report"]
