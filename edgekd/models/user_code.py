"""Running the user's own Python file: knowingly, with its errors told by file and line."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from edgekd.errors import EdgeKDError, ModelError, fault
from edgekd.models.brief import brief

_siblings: dict[str, Path] = {}  # plain module name -> folder, of what user files imported from beside them


def import_file(path: Path, where: str) -> ModuleType:
    """Execute ``path`` as a module of its own; files beside it can be imported by it.

    Raises:
        ModelError: no such file, or an error in it, with its file and line.
    """
    if not path.is_file():
        raise ModelError(fault(where, "no such Python file", got=str(path), allowed="torch:FILE.py:FACTORY"))
    name = f"edgekd_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up
    with user_code(path, where):
        spec.loader.exec_module(module)
    return module


@contextmanager
def user_code(path: Path, where: str) -> Iterator[None]:
    """Errors inside become one line with the user's file and line; the file's folder is importable."""
    folder = path.parent
    for name, home in list(_siblings.items()):
        if home != folder:  # another user file's neighbour of the same name must not be taken for ours
            sys.modules.pop(name, None)
            del _siblings[name]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    except EdgeKDError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(fault(where, f"error in {_spot(path, error)}", got=brief(error))) from error
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and folder in Path(file).parents:
                _siblings[name] = folder


def _spot(path: Path, error: BaseException) -> str:
    """``file:line`` of the innermost frame in the user's folder, or of a syntax error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == path.parent]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(path)
