"""What the wheel holds, and what importing costs: a Raspberry Pi installs this without torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINKS = {"export": "../export", "profiles": "../profiles", "devices": "../devices"}
HEAVY = ("torch", "timm", "torchvision", "transformers", "accelerate", "onnx", "sklearn")


@pytest.fixture(scope="module")
def settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules() -> list[Path]:
    """Every Python file of the package, each once: the three linked folders under their own names."""
    folders = [ROOT / "edgekd", *(ROOT / name for name in LINKS)]
    return sorted(
        path for folder in folders for path in folder.rglob("*.py") if "__pycache__" not in path.parts
    )


def test_the_packages_in_pyproject_are_those_on_disk(settings):
    declared = settings["tool"]["setuptools"]["packages"]
    places = settings["tool"]["setuptools"]["package-dir"]
    found = {"edgekd"}
    for init in modules():
        if init.name != "__init__.py":
            continue
        parts = init.parent.relative_to(ROOT).parts
        found.add(".".join(parts if parts[0] == "edgekd" else ("edgekd", *parts)))
    assert sorted(declared) == sorted(found)
    assert {name: places[f"edgekd.{name}"] for name in LINKS} == {name: name for name in LINKS}


def test_the_links_are_relative_and_lead_to_the_folders_at_the_top():
    for name, target in LINKS.items():
        link = ROOT / "edgekd" / name
        assert link.is_symlink() and os.readlink(link) == target
        assert link.resolve() == ROOT / name


def test_every_data_file_is_declared(settings):
    """A file that is not declared is there in the repository and missing after pip install."""
    import fnmatch

    declared = settings["tool"]["setuptools"]["package-data"]
    for package in settings["tool"]["setuptools"]["packages"]:
        folder = ROOT / package.replace(".", "/")
        for file in folder.iterdir():
            if file.is_file() and file.suffix != ".py":
                patterns = declared.get(package, [])
                assert any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns), file


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_is(path):
    text = path.read_text()
    assert text.count("\n") < 400
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no docstring"
    if path.name == "__init__.py":
        imported = {
            name.split(".")[0]
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
        }
        assert not imported & set(HEAVY)


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after ``code``."""
    probe = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import edgekd, edgekd.recipe_file, edgekd.device, edgekd.report, edgekd.artifact",
        "import edgekd.profiles, edgekd.profiles.session",
        "import edgekd.data, edgekd.tasks.image_classification",
    ],
)
def test_the_rooms_that_a_board_uses_import_no_torch(code):
    assert not loaded_by(code) & set(HEAVY)


@pytest.mark.slow
def test_the_wheel_installs_and_runs_outside_the_repository(tmp_path):
    """Built from a copy, put into an environment of its own; the packages it needs are this environment's."""
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        file, target = ROOT / name, source / name
        if file.is_symlink() or file.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.is_symlink():
                target.symlink_to(os.readlink(file))
            else:
                target.write_bytes(file.read_bytes())
    quiet = {"capture_output": True, "text": True, "check": False, "env": {**os.environ, "PYTHONPATH": ""}}
    built = subprocess.run(
        [sys.executable, "-c", "import sys; from setuptools import build_meta as b; print(b.build_wheel(sys.argv[1]))",
         str(tmp_path)], cwd=source, **quiet,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"edgekd"}
    assert {"edgekd/recipes/demo.yaml", "edgekd/devices/cpu.yaml", "edgekd/report/style.css", "edgekd/py.typed",
            "edgekd/profiles/session.py", "edgekd/export/bundle_run.py"} <= set(names)  # fmt: skip
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    # As pip --target would place it, ahead of the checkout that this environment knows.
    run = {**quiet, "cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(site)}}
    where = subprocess.run([sys.executable, "-c", "import edgekd; print(edgekd.__file__)"], **run)
    assert where.stdout.startswith(str(site)), where
    for command in (["demo", "--help"], ["recipes", "--json", "-"], ["devices", "list", "--json", "-"]):
        done = subprocess.run([sys.executable, "-m", "edgekd", *command], **run)
        assert done.returncode == 0 and done.stderr == "", done
