"""``edgekd recipes`` and ``edgekd objectives``: what ships."""

from __future__ import annotations

from edgekd.cli.output import JsonOption, show, write_result


def recipes(json_to: JsonOption = None) -> None:
    """The shipped recipes: name them in place of a recipe file."""
    from edgekd.recipe_file import read_document, shipped_recipes

    rows = []
    for name, path in shipped_recipes().items():
        document = read_document(path)
        stages = [next(iter(stage)) for stage in document.get("stages", [])]
        rows.append(
            {
                "name": name,
                "stages": stages,
                "description": document.get("description", ""),
                "file": str(path),
            }
        )
    if not write_result(rows, json_to):
        show(_table(["recipe", "stages", "what it is for"],
                    [[row["name"], " → ".join(row["stages"]), row["description"]] for row in rows]))  # fmt: skip


def objectives(json_to: JsonOption = None) -> None:
    """The distillation objectives that a stage can weigh."""
    from edgekd.cli.needs import need_compress

    need_compress()
    from edgekd.distill.objectives import OBJECTIVES

    rows = [{"name": name, "settings": ["weight", *kind.settings], "summary": kind.summary}
            for name, kind in OBJECTIVES.items()]  # fmt: skip
    if not write_result(rows, json_to):
        show(_table(["objective", "settings", "what it compares"],
                    [[row["name"], ", ".join(row["settings"]), row["summary"]] for row in rows]))  # fmt: skip


def _table(columns: list[str], rows: list[list[object]]) -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    return table
