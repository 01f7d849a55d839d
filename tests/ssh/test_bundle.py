"""What travels to the board: complete, without packages, and in the words of Python 3.8."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edgekd.profiles.ssh.bundle import _run_time, carried, imported, program

AGENT = "edgekd.profiles.ssh.onboard.agent"
PACKAGES_OF_THE_BOARD = {
    "numpy", "onnxruntime",
    "openvino", "executorch", "ai_edge_litert",  # other runtimes: imported when asked for
}  # fmt: skip


def test_the_worker_and_the_agent_travel() -> None:
    assert {AGENT, "edgekd.profiles.worker", "edgekd.profiles.timing", "edgekd.profiles.runtimes.ort"} <= set(
        carried()
    )


def test_nothing_that_travels_imports_a_package_that_a_board_lacks() -> None:
    for name, (_, source) in carried().items():
        for node in _run_time(ast.parse(source)):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found = [node.module]
            tops = {module.partition(".")[0] for module in found}
            assert tops <= {*sys.stdlib_module_names, *PACKAGES_OF_THE_BOARD, "edgekd"}, name


def test_whatever_is_imported_travels_too() -> None:
    for name, (_, source) in carried().items():
        assert set(imported(source)) <= set(carried()), name


def test_what_only_type_checkers_read_does_not() -> None:
    source = "if TYPE_CHECKING:\n    import edgekd.device\nelse:\n    import edgekd.cpu\n"
    assert list(imported(source)) == ["edgekd.cpu"]


@pytest.mark.parametrize("name", sorted(carried()))
def test_python_3_8_takes_it(name: str) -> None:
    """JetPack 5 has Python 3.8. Annotations are never evaluated there; everything else is."""
    source = carried()[name][1]
    assert list(newer_than_3_8(source)) == []


def newer_than_3_8(source: str) -> Iterator[str]:
    tree = ast.parse(source, feature_version=(3, 8))
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]
    if not (body and isinstance(body[0], ast.ImportFrom) and body[0].module == "__future__"):
        yield from (
            "line 1: no 'from __future__ import annotations'" for _ in body[:1] if _has_annotations(tree)
        )
    for node in _evaluated(tree):
        where = f"line {getattr(node, 'lineno', '?')}"
        if isinstance(node, ast.Subscript) and _name(node.value) in _NOT_SUBSCRIPTABLE:
            yield f"{where}: {_name(node.value)}[...] outside of an annotation"
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.BitOr)
            and _is_type(node.left) | _is_type(node.right)
        ):
            yield f"{where}: X | Y of types outside of an annotation"
        if (
            isinstance(node, ast.Call)
            and _name(node.func) == "zip"
            and any(k.arg == "strict" for k in node.keywords)
        ):
            yield f"{where}: zip(strict=...)"
        if isinstance(node, ast.Call) and _name(node.func) == "dataclass":
            yield from (
                f"{where}: dataclass({k.arg}=)" for k in node.keywords if k.arg in ("slots", "kw_only")
            )
        if isinstance(node, ast.Attribute) and node.attr in _NEWER_ATTRIBUTES:
            yield f"{where}: .{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module in (
            "typing",
            "enum",
            "functools",
            "itertools",
            "hashlib",
        ):
            yield from (f"{where}: {alias.name}" for alias in node.names if alias.name in _NEWER_NAMES)
        if isinstance(node, ast.Match | ast.TryStar):
            yield f"{where}: {type(node).__name__}"


_NOT_SUBSCRIPTABLE = {
    "list", "dict", "tuple", "set", "frozenset", "type", "Callable", "Sequence", "Mapping", "Iterable", "Iterator",
    "Counter", "deque", "defaultdict", "Popen", "MutableMapping", "Generator",
}  # fmt: skip
_NEWER_ATTRIBUTES = {
    "removeprefix",
    "removesuffix",
    "file_digest",
    "bit_count",
    "is_relative_to",
    "readlink",
    "pairwise",
}
_NEWER_NAMES = {
    "TypeAlias",
    "ParamSpec",
    "Self",
    "StrEnum",
    "cache",
    "pairwise",
    "NotRequired",
    "override",
    "assert_never",
}


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _is_type(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is None
    return isinstance(node, ast.Subscript) or _name(node) in {
        "int",
        "str",
        "float",
        "bool",
        "bytes",
        *_NOT_SUBSCRIPTABLE,
    }


def _has_annotations(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.AnnAssign | ast.arg) and node.annotation for node in ast.walk(tree))


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but annotations and what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _name(child.test) == "TYPE_CHECKING":
            for other in child.orelse:
                yield other
                yield from _evaluated(other)
            continue
        if isinstance(node, ast.AnnAssign | ast.arg) and child is node.annotation:
            continue
        if isinstance(node, ast.FunctionDef) and child is node.returns:
            continue
        yield child
        yield from _evaluated(child)


@pytest.mark.parametrize(
    "source",
    ["Shape = tuple[int, ...]", "Clock = Callable[[], float]", "Shape = int | None", "zip(a, b, strict=True)",
     "x.removeprefix('a')", "from enum import StrEnum", "match x:\n    case 1: pass", "def f(x: int | None): ...",
     "@dataclass(slots=True)\nclass A: ..."],
)  # fmt: skip
def test_the_check_finds_what_is_newer(source: str) -> None:
    try:
        assert list(newer_than_3_8(source))
    except SyntaxError:
        pass


def test_the_program_needs_nothing_that_is_installed() -> None:
    """Not even edgekd: the modules come from the program's own text, also where another edgekd is installed."""
    text = program(AGENT).replace(
        "entry.main()", "import edgekd; print(edgekd.__spec__.loader, edgekd.__file__)"
    )
    code = "import sys\ntry:\n    exec(sys.stdin.read())\nexcept AttributeError:\n    print('carried')"
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True
    )
    assert done.stdout == "carried\n"


def test_a_module_that_does_not_travel_is_said_to_be_missing() -> None:
    text = program(AGENT).replace("entry.main()", "import edgekd.device")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; exec(sys.stdin.read())"],
        input=text,
        capture_output=True,
        text=True,
    )
    assert "the agent does not carry edgekd.device" in done.stderr
