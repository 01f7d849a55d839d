"""Look at every sample once before hours are spent on it: does it decode, and does it stand in two splits?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np

from edgekd.data.cache_dir import cache_dir
from edgekd.data.path_source import PathSource
from edgekd.data.remembered import Stamp, recall, remember
from edgekd.data.source import SPLITS, Progress, SampleError, SampleSource, is_text, noun
from edgekd.errors import DataError, fault

_BLOCK = 64
_SHOWN = 3
_SAVE_EVERY = 4096
_WHAT = "checking images"


def verify(
    source: SampleSource, indices: np.ndarray, progress: Progress | None = None
) -> tuple[dict[int, bytes], dict[int, str]]:
    """sha256 of each sound sample by source index, and what is wrong with each broken one.

    Threads decode (Pillow releases the interpreter lock); files that were sound before are not decoded again.
    """
    if isinstance(source, PathSource):
        return _verify_files(source, indices, progress)
    digests, broken = {}, {}
    for index in indices.tolist():
        try:
            digests[index] = source.digest(index)
        except SampleError as error:
            broken[index] = str(error)
    return digests, broken


def _verify_files(
    source: PathSource, indices: np.ndarray, progress: Progress | None
) -> tuple[dict[int, bytes], dict[int, str]]:
    file = cache_dir() / "sound-images.sqlite"
    folder = os.fsencode(source.root.resolve())
    known = recall(file, folder)
    digests: dict[int, bytes] = {}
    broken: dict[int, str] = {}
    fresh: list[tuple[bytes, Stamp, bytes]] = []

    def look(block: Sequence[int]) -> list[tuple[int, Stamp | None, bytes | str]]:
        return [(index, *_look(source, index, known)) for index in block]

    order = indices.tolist()
    blocks = [order[start : start + _BLOCK] for start in range(0, len(order), _BLOCK)]
    workers = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        for results in workers.map(look, blocks):
            for index, stamp, result in results:
                if isinstance(result, str):
                    broken[index] = result
                    continue
                digests[index] = result
                if stamp is not None:
                    fresh.append((os.fsencode(source.paths[index]), stamp, result))
            if len(fresh) >= _SAVE_EVERY:
                remember(file, folder, fresh)
                fresh.clear()
            if progress is not None:
                progress(_WHAT, len(digests) + len(broken), len(order))
    finally:
        workers.shutdown(cancel_futures=True)
        remember(file, folder, fresh)
    return digests, broken


def _look(
    source: PathSource, index: int, known: Mapping[bytes, tuple[Stamp, bytes]]
) -> tuple[Stamp | None, bytes | str]:
    """The stamp of a file that was decoded now and is sound, else None; its digest, or what is wrong."""
    try:
        facts = source.file(index).stat()
        stamp = (facts.st_size, facts.st_mtime_ns)
    except OSError:
        stamp = None  # the reading below says why
    before = known.get(os.fsencode(source.paths[index]))
    if before is not None and before[0] == stamp:
        return None, before[1]
    try:
        return stamp, source.digest(index)
    except SampleError as error:
        return None, str(error)


def settle_broken(broken: Mapping[int, str], limit: int, where: str, what: str = "image") -> list[str]:
    """Warnings about ``broken`` samples that are skipped.

    Raises:
        DataError: more than ``limit``; names the first few.
    """
    if not broken:
        return []
    shown = "; ".join(list(broken.values())[:_SHOWN])
    more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
    if len(broken) > limit:
        fix = f"mend or remove them, or allow {len(broken)} with --set data.max_broken={len(broken)}"
        count = f"{len(broken)} broken {what if len(broken) == 1 else what + 's'}"
        raise DataError(fault(where, f"{count}: {shown}{more}", allowed=f"at most {limit}", fix=fix))
    return [" ".join(f"skipped {len(broken)} broken {what}s: {shown}{more}".split())]


def find_duplicates(
    source: SampleSource, splits: Mapping[str, np.ndarray], digests: Mapping[int, bytes]
) -> list[str]:
    """A warning for each two splits that share samples, with the count and one pair."""
    first: dict[str, dict[bytes, int]] = {split: {} for split in SPLITS}
    for split, indices in splits.items():
        for index in indices.tolist():
            first[split].setdefault(digests[index], index)
    warnings = []
    for one, other in combinations(SPLITS, 2):
        shared = first[one].keys() & first[other].keys()
        if not shared:
            continue
        count = sum(digests[index] in shared for index in splits[other].tolist())
        example = min(shared, key=lambda digest: first[other][digest])
        pair = f"{source.sample_id(first[one][example])} and {source.sample_id(first[other][example])}"
        warnings.append(
            f"{count} of {len(splits[other])} {other} {noun(source)}s are also in {one}, such as {pair}"
        )
    return warnings


def fingerprint(source: SampleSource, splits: Mapping[str, np.ndarray], digests: Mapping[int, bytes]) -> str:
    """sha256 over class names and, per split, each sample's id, label and content."""
    digest = hashlib.sha256("\0".join(source.classes).encode("utf-8", "surrogateescape"))
    for split in SPLITS:
        digest.update(f"\0{split}\0{len(splits[split])}\0".encode())
        for index in splits[split].tolist():
            digest.update(f"{source.sample_id(index)}\0{source.labels[index]}\0".encode() + digests[index])
            if is_text(source) and source.targets is not None:
                digest.update(source.targets[index].tobytes())
    return digest.hexdigest()


def check_classes(source: SampleSource, train: np.ndarray, where: str) -> None:
    """Refuse fewer than two classes, and a class that none of the ``train`` indices has.

    Raises:
        DataError: names the classes.
    """
    classes = source.classes
    if len(classes) < 2:
        got = ", ".join(classes) or "none"
        raise DataError(fault(where, "one class only: nothing to tell apart", got=got, allowed="two or more"))
    empty = np.flatnonzero(class_counts(source, train) == 0)
    if len(empty):
        names = ", ".join(repr(classes[number]) for number in empty[:_SHOWN])
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        fix = f"add {noun(source)}s, remove the class, or raise data.max_train"
        raise DataError(fault(where, f"a class has no training {noun(source)}: {names}{more}", fix=fix))


def missing_classes(source: SampleSource, splits: Mapping[str, np.ndarray]) -> list[str]:
    """A warning for each measuring split that lacks a class."""
    warnings = []
    for split in ("validation", "test"):
        counts = class_counts(source, splits[split])
        missing = np.flatnonzero(counts == 0)
        if len(missing):
            example = source.classes[missing[0]]
            warnings.append(
                f"{len(missing)} of {len(counts)} classes have no {split} {noun(source)}, such as {example!r}"
            )
    return warnings


def class_counts(source: SampleSource, indices: np.ndarray) -> np.ndarray:
    """How many of ``indices`` have each class: int64 ``(classes,)``."""
    if is_text(source) and source.targets is not None:
        return source.targets[indices].sum(axis=0).astype(np.int64)
    return np.bincount(source.labels[indices], minlength=len(source.classes))
