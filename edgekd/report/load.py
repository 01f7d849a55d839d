"""Reading and writing ``report.json``."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from edgekd.artifact import write_json
from edgekd.errors import UserInputError, fault
from edgekd.report.schema import SCHEMA, Report


def load_report(path: Path) -> Report:
    """The report in ``path``: a ``report.json``, or a run directory that holds one.

    Raises:
        UserInputError: missing, not JSON, of another schema, or a key that is missing or out of range.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        begun = (path / "run.json").exists()
        fix = "the run has not finished" if begun else "give a run's folder or its report.json"
        raise UserInputError(fault(str(file), "cannot be read", got=error.strerror, fix=fix)) from None
    except ValueError:
        raise UserInputError(
            fault(str(file), "is not JSON", fix="run edgekd compress --resume to write it again")
        ) from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        got = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise UserInputError(
            fault(str(file), "is not a report of this edgekd", got=got, allowed=f"schema {SCHEMA}")
        )
    try:
        return Report.model_validate(document)
    except ValidationError as error:
        raise UserInputError(_first_problem(error, str(file))) from None


def write_report(report: Report, path: Path) -> None:
    """``report`` as indented JSON, atomically.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    write_json(path, report.model_dump(mode="json", by_alias=True))


def _first_problem(error: ValidationError, where: str) -> str:
    problem = error.errors()[0]
    spot = ""
    for part in problem["loc"]:
        spot += f"[{part}]" if isinstance(part, int) else f".{part}"
    spot = f"{where}: {spot.removeprefix('.')}"
    if problem["type"] == "missing":
        return fault(spot, "is missing")
    return fault(spot, problem["msg"], got=problem["input"])
