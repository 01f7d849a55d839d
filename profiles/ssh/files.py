"""Which files a model needs on the board, and what they are called there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgekd.errors import ModelFileError, fault
from edgekd.profiles.onnx_file import read_summary
from edgekd.profiles.ssh.board import Board


@dataclass(frozen=True)
class BoardFile:
    """Attributes:
    source: here.
    name: in the model's own folder on the board.
    alone: the runtime opens it by any path, and no other file refers to it.
    """

    source: Path
    name: str
    alone: bool = False


def board_files(path: Path, runtimes: Collection[str]) -> list[BoardFile]:
    """The model first, under a generated name; then what it refers to, under the names that it uses.

    Args:
        runtimes: all that open this file.

    Raises:
        ModelFileError: a file is missing or broken, or its external data lie outside its folder.
    """
    suffix = path.suffix.lower()
    files = [BoardFile(path, f"model{suffix}")]
    if suffix == ".onnx":
        for name in read_summary(path).external:
            parts = PurePosixPath(name).parts
            if not parts or ".." in parts or name.startswith("/"):
                what = "its external data lie outside its folder"
                raise ModelFileError(
                    fault(str(path), what, got=name, fix="save it again with its data beside it")
                )
            files.append(BoardFile(path.parent / name, name))
    elif suffix == ".xml":
        files.append(BoardFile(path.with_suffix(".bin"), "model.bin"))
    if set(runtimes) == {"onnxruntime"} and len(files) == 1:
        files = [BoardFile(path, files[0].name, alone=True)]
    for file in files:
        if not file.source.is_file():
            raise ModelFileError(fault(str(file.source), "is missing"))
    return files


def copy_files(
    board: Board, copies: Mapping[Path, list[BoardFile]], told: Callable[[int, int], None] | None = None
) -> dict[Path, str]:
    """Copy every model once; where each is on the board.

    Args:
        told: called with the bytes sent so far and all there are, when a percent more has gone.
    """
    total = sum(file.source.stat().st_size for files in copies.values() for file in files)
    board.make_room(total)
    places: dict[Path, str] = {}
    before = last = 0

    def count(sent: int) -> None:
        nonlocal last
        if told and (before + sent - last) * 100 >= total:
            last = before + sent
            told(last, total)

    for number, (path, files) in enumerate(copies.items()):
        for file in files:
            place = board.put(file.source, f"{number}/{file.name}", alone=file.alone, told=count)
            places.setdefault(path, place)
            before += file.source.stat().st_size
    return places
