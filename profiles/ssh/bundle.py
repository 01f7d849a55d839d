"""One Python text that holds everything the board needs of edgekd: the very files that run here.

The agent and its workers are therefore the local code, not a copy that could fall behind. What travels runs on
Python 3.8 and needs no package but those of the runtime; ``tests/ssh/test_bundle.py`` holds it to that.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_ROOTS = ("edgekd.profiles.ssh.onboard.agent", "edgekd.profiles.worker", "edgekd.profiles.machine")
_PACKAGES = ("edgekd.profiles.runtimes",)  # chosen by name, at run time
# Modules come from the text itself, from nowhere else: an edgekd that is installed on the board is not mixed in.
_LOADER = """\
import importlib.util, sys
class _Carried:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "edgekd":
            return None
        if name not in SOURCES:
            raise ModuleNotFoundError("the agent does not carry " + name, name=name)
        return importlib.util.spec_from_loader(name, self, is_package=SOURCES[name][0])
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        name = module.__spec__.name
        exec(compile(SOURCES[name][1], name.replace(".", "/") + ".py", "exec"), module.__dict__)
sys.meta_path.insert(0, _Carried())
"""


def program(entry: str) -> str:
    """Source of a program that calls ``main()`` of the module ``entry``, which it carries.

    The agent finds the part without the call as ``CARRIED``: a worker is started with it.
    """
    text = f"SOURCES = {carried()!r}\n{_LOADER}"
    return (
        f"CARRIED = {text!r}\n"
        "exec(compile(CARRIED, 'edgekd-carried', 'exec'))\n"
        f"import {entry} as entry\n"
        "entry.CARRIED = CARRIED\n"
        "entry.main()\n"
    )


@lru_cache(maxsize=1)
def carried() -> dict[str, tuple[bool, str]]:
    """Module name to (is it a package, source), parents included."""
    found: dict[str, tuple[bool, str]] = {}
    waiting = list(_ROOTS)
    for package in _PACKAGES:
        folder = _path(package).parent
        waiting += [package, *(f"{package}.{path.stem}" for path in sorted(folder.glob("[a-z]*.py")))]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _path(name)
        source = path.read_text(encoding="utf-8")
        found[name] = (path.name == "__init__.py", source)
        waiting += [parent for parent in _parents(name) if parent not in found]
        waiting += [module for module in imported(source) if module not in found]
    return dict(sorted(found.items()))


def imported(source: str) -> Iterator[str]:
    """Modules of edgekd that a source imports when it runs, at its top or later."""
    for node in _run_time(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module):
            yield node.module
            for alias in node.names:
                if find_module(f"{node.module}.{alias.name}"):
                    yield f"{node.module}.{alias.name}"


def _run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            children: Iterable[ast.AST] = child.orelse
            for other in children:
                yield other
                yield from _run_time(other)
            continue
        yield child
        yield from _run_time(child)


def find_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the parent is a module, not a package
        return False


def _is_ours(name: str) -> bool:
    return name == "edgekd" or name.startswith("edgekd.")


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _path(name: str) -> Path:
    spec = find_spec(name)
    assert spec and spec.origin
    return Path(spec.origin)
