"""What the documents say exists: links, files, verbs and their options."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from edgekd.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/**/*.md")]
READ = [page for page in PAGES if page.name != "CHANGELOG.md"]  # the past may name what is gone
ELSEWHERE = {"run.py"}  # in a deployed folder
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every ``edgekd`` and ``python`` line of a page, fenced or between backticks."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = [line for block in _FENCED.findall(text) for line in block.splitlines()[1:-1]]
    inline = re.findall(r"`([^`\n]+)`", _FENCED.sub("", text))
    for line in [*fenced, *inline]:
        if re.match(r"(edgekd|python) [\w./-]", line.strip()):
            yield shlex.split(line, comments=True)


def parameters(words: list[str]) -> tuple[set[str], list[str]]:
    """The options that a verb has, and what is left of the line behind the verb."""
    command, rest = get_command(app), words[1:]
    options: set[str] = set()
    while True:
        options |= {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        verbs = getattr(command, "commands", {})
        if not (verbs and rest) or rest[0].startswith("-"):
            return options | {"--help"}, rest
        assert rest[0] in verbs, f"no verb {rest[0]!r}; there are {', '.join(verbs)}"
        command, rest = verbs[rest[0]], rest[1:]


@pytest.mark.parametrize("page", READ, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_verb_and_option_in_a_page_exists(page: Path) -> None:
    for words in commands(page):
        line = " ".join(words)
        if words[0] == "edgekd":
            options, rest = parameters(words)
            given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
            assert given <= options, f"{page.name}: {line}: no {sorted(given - options)}"
        else:
            script = _script(words)
            if script is None:
                continue
            assert script.exists(), f"{page.name}: {line}"
            parts = script.parent.glob("*.py") if script.name == "__main__.py" else [script]
            text = "".join(part.read_text(encoding="utf-8") for part in parts)
            given = {word.strip("[]").partition("=")[0] for word in words if word.strip("[").startswith("--")}
            missing = [option for option in given if option not in text and option != "--help"]
            assert not missing, f"{page.name}: {line}: {script.name} has no {missing}"


def _script(words: list[str]) -> Path | None:
    """The file that a ``python`` line runs; None where it is a program of somebody else."""
    if words[1] == "-m":
        place = ROOT / words[2].replace(".", "/")
        return place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    if not words[1].endswith(".py") or Path(words[1]).name in ELSEWHERE:
        return None
    return next(
        (at / words[1] for at in (ROOT, ROOT / "benchmarks") if (at / words[1]).exists()), ROOT / words[1]
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    broken = [
        target for target in targets
        if not re.match(r"https?:|mailto:|#", target) and not (page.parent / target.partition("#")[0]).exists()
    ]  # fmt: skip
    assert broken == []


def test_the_files_that_the_architecture_names_exist() -> None:
    text = _FENCED.sub("", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    rooms = ("edgekd", "export", "profiles", "devices", "benchmarks", "tests")
    files = [ROOT / name for name in ("pyproject.toml", "ARCHITECTURE.md")]
    files += [path for room in rooms for path in (ROOT / room).rglob("*") if "__pycache__" not in path.parts]
    known = [f"/{path.relative_to(ROOT)}" for path in files]
    named = {
        word for word in re.findall(r"`([\w./*-]+)`", text)
        if re.search(r"\.(py|json|yaml|toml|md)$", word) or (word.endswith("/") and not word.startswith("."))
    }  # fmt: skip
    written = {"report.json", "run.json"}  # of a run
    assert len(named) > 40
    gone = [word for word in sorted(named - written) if not fnmatch.filter(known, f"*/{word.rstrip('/')}")]
    assert gone == []
