from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.artifact import RunDirectory, atomic_path, sha256_file, write_json, write_text
from edgekd.errors import OutputError

RUN = {"recipe_yaml": "a: 1\n", "recipe_hash": "h" * 64}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    class Boom(Exception):
        pass

    with pytest.raises(Boom), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise Boom
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_full_disk_is_one_line(tmp_path):
    with (
        pytest.raises(OutputError, match="the disk is full") as caught,
        atomic_path(tmp_path / "x") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_really_full_device_is_one_line(tmp_path):
    with (
        pytest.raises(OutputError, match="the disk is full"),
        atomic_path(tmp_path / "x"),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x" * 100_000)


def test_sha256_is_that_of_the_bytes(tmp_path):
    write_text(tmp_path / "x", "abc")
    assert sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_run_is_claimed_once_and_resumed_only_with_its_recipe(tmp_path):
    out = tmp_path / "run"
    RunDirectory.open(out, **RUN, resume=False).finish("distill", seconds=1)
    with pytest.raises(OutputError, match="holds another run"):
        RunDirectory.open(out, **RUN, resume=False)
    with pytest.raises(OutputError, match="another recipe"):
        RunDirectory.open(out, recipe_yaml="", recipe_hash="x" * 64, resume=True)
    assert RunDirectory.open(out, **RUN, resume=True).is_done("distill")
    assert not RunDirectory.open(out, **RUN, resume=True).is_done("prune")


def test_a_run_goes_on_only_with_the_samples_that_it_began_with(tmp_path):
    run = RunDirectory.open(tmp_path / "run", **RUN, resume=False)
    run.claim_data("photos", "a" * 64)
    again = RunDirectory.open(tmp_path / "run", **RUN, resume=True)
    again.claim_data("photos", "a" * 64)
    with pytest.raises(OutputError, match=r"the data photos changed since the run began.*restore the data"):
        again.claim_data("photos", "b" * 64)
    assert RunDirectory.open(tmp_path / "run", **RUN, resume=True).state["data"] == "a" * 64


def test_a_folder_with_other_files_is_refused_untouched(tmp_path):
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(OutputError, match="not an empty folder"):
        RunDirectory.open(tmp_path, **RUN, resume=False)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]


def test_checking_leaves_no_trace(tmp_path):
    RunDirectory.check(tmp_path / "a" / "b", recipe_hash="h", resume=False)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_parent_is_one_line(tmp_path):
    """As an ordinary user: root may write anywhere."""
    parent = tmp_path / "locked"
    parent.mkdir()
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from edgekd.artifact import RunDirectory\n"
        "from edgekd.errors import OutputError\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: RunDirectory.check(Path(sys.argv[1]), recipe_hash='h', resume=False)\n"
        "except OutputError as error: print(error); sys.exit(error.exit_code)\n"
    )
    parent.chmod(0o555)
    tmp_path.chmod(0o755)
    for folder in list(tmp_path.parents)[:2]:
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, str(parent / "run")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done
    assert "cannot be written" in done.stdout and done.stdout.count("\n") == 1
    assert list(parent.iterdir()) == []


def test_a_damaged_run_json_is_one_line(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match=r"not a run\.json"):
        RunDirectory.check(tmp_path, recipe_hash="h", resume=True)
