"""A folder that Hugging Face ``datasets`` wrote with ``save_to_disk``: Arrow streams beside JSON, no code.

One data set is ``data-*.arrow``, ``dataset_info.json`` (features, class names) and ``state.json`` (the files
in order); several splits are sub-folders of those, named in ``dataset_dict.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekd.data.folder import SPLIT_NAMES
from edgekd.data.source import Samples
from edgekd.data.text_rows import Rows, Wanted, arrow_rows, require_pyarrow
from edgekd.data.text_table import joined, samples_of, wanted_columns
from edgekd.errors import DataError, fault
from edgekd.recipe import DataRecipe

_DICT, _INFO, _STATE = "dataset_dict.json", "dataset_info.json", "state.json"


def is_saved_dataset(path: Path) -> bool:
    """Whether ``save_to_disk`` wrote the folder."""
    return (path / _DICT).is_file() or (path / _STATE).is_file()


def open_saved_dataset(path: Path, recipe: DataRecipe) -> Samples:
    """Every split of the folder.

    Raises:
        DataError: damaged, no training split, a column missing, a row without label.
        MissingDependencyError: pyarrow is not installed.
    """
    folders = {"train": path}
    if (path / _DICT).is_file():
        folders = {}
        for name in _json(path / _DICT).get("splits", []):
            split = SPLIT_NAMES.get(str(name).lower())
            if split is not None:
                folders[split] = path / Path(str(name)).name
        if "train" not in folders:
            allowed = ", ".join(SPLIT_NAMES)
            raise DataError(fault(str(path / _DICT), "names no training split", allowed=allowed))
    wanted = wanted_columns(recipe, split=False)
    parts = {split: _read(folder, wanted, recipe) for split, folder in folders.items()}
    licence = str(_json(folders["train"] / _INFO).get("license") or "")
    return samples_of(
        parts, recipe, name=path.resolve().name, where=str(path), form="datasets folder",
        provenance={"licence": licence} if licence else {},
    )  # fmt: skip


def _read(folder: Path, wanted: Wanted, recipe: DataRecipe) -> Rows:
    require_pyarrow(str(folder))
    import pyarrow.ipc

    files = [Path(str(entry.get("filename"))).name for entry in _json(folder / _STATE).get("_data_files", [])]
    if not files:
        raise DataError(fault(str(folder / _STATE), "names no data files"))
    parts = []
    for name in files:
        file = folder / name
        try:
            with pyarrow.memory_map(str(file)) as stream:
                table = pyarrow.ipc.open_stream(stream).read_all()
                chosen = wanted.find(file, table.column_names)
                parts.append(arrow_rows(table.select(chosen), chosen, f"{folder.name}/{name}"))
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(fault(str(file), "not an Arrow stream", got=reason)) from None
    rows = joined(parts)
    rows.classes = _class_names(_json(folder / _INFO).get("features"), recipe.label_column)
    return rows


def _class_names(features: Any, column: str) -> tuple[str, ...]:
    """Of a ``ClassLabel`` column, or of a list of them."""
    feature = features.get(column) if isinstance(features, dict) else None
    while isinstance(feature, (dict, list)):
        if isinstance(feature, list):
            feature = feature[0] if feature else None
        elif feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
            return tuple(str(name) for name in feature["names"])
        else:
            feature = feature.get("feature")
    return ()


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(fault(str(path), "cannot be read", got=reason)) from None
    if not isinstance(value, dict):
        raise DataError(fault(str(path), "not a JSON object"))
    return value
