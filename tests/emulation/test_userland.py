"""Setting up: what is tampered with, leads out of its folder or is missing is refused in one line."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from edgekd.errors import EdgeKDError, MissingDependencyError
from edgekd.profiles.emulation import userland as home
from edgekd.profiles.emulation.fetch import fetch_debs, fetch_wheels
from edgekd.profiles.emulation.unpack import unpack_deb, unpack_tar, unpack_wheel


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def wheel(folder: Path, name: str, content: bytes = b"x = 1\n") -> Path:
    file = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder as pip's only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for key, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    return folder


def fetched(index: Path, digest: str, into: Path) -> list[Path]:
    return fetch_wheels({"emutest==1.0": digest}, into, python="3.11", platforms=["manylinux2014_aarch64"])


def test_a_wheel_comes_with_its_hash_and_is_not_fetched_twice(index, tmp_path):
    digest = hashlib.sha256(wheel(index, "emutest").read_bytes()).hexdigest()
    (file,) = fetched(index, digest, tmp_path / "wheels")
    (index / file.name).unlink()  # a second fetch would fail now
    assert fetched(index, digest, tmp_path / "wheels") == [file]


def test_a_tampered_wheel_is_refused_by_its_hash(index, tmp_path):
    honest = hashlib.sha256(wheel(index, "emutest").read_bytes()).hexdigest()
    wheel(index, "emutest", b"x = 'evil'\n")
    with pytest.raises(EdgeKDError, match="could not fetch"):
        fetched(index, honest, tmp_path / "wheels")
    assert not list((tmp_path / "wheels").glob("*.whl"))


def test_a_wheel_that_was_tampered_with_in_the_cache_is_fetched_again(index, tmp_path):
    digest = hashlib.sha256(wheel(index, "emutest").read_bytes()).hexdigest()
    (file,) = fetched(index, digest, tmp_path / "wheels")
    good = file.read_bytes()
    file.write_bytes(good + b"evil")
    (again,) = fetched(index, digest, tmp_path / "wheels")
    assert again.read_bytes() == good


@pytest.fixture
def repository(tmp_path, needs):
    """An apt repository of one package on disk, as a sources.list; ``index`` writes its index."""
    needs("apt-get")
    needs("dpkg-deb")
    folder, tree = tmp_path / "repository", tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "usr/lib/thing").write_text("a file\n")
    (tree / "usr/lib/link").symlink_to("thing")
    (tree / "etc").mkdir()
    (tree / "etc/absolute").symlink_to("/etc/passwd")
    control = (
        "Package: emutest\nVersion: 1.0\nArchitecture: arm64\nMaintainer: t <t@example.org>\nDescription: t\n"
    )
    (tree / "DEBIAN/control").write_text(control)
    folder.mkdir()
    deb = folder / "emutest_1.0_arm64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True, stdout=subprocess.DEVNULL)
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    size = deb.stat().st_size
    (folder / "Packages").write_text(f"{control}Filename: ./{deb.name}\nSize: {size}\nSHA256: {digest}\n")
    sources = tmp_path / "sources.list"
    sources.write_text(f"deb [trusted=yes] copy:{folder} ./\n")
    return sources, deb


def test_a_package_is_fetched_for_another_architecture_without_root(repository, tmp_path):
    sources, _ = repository
    (file,) = fetch_debs(["emutest"], tmp_path / "debs", arch="arm64", sources=sources)
    # What an interrupted set-up fetched is found again.
    assert fetch_debs(["emutest"], tmp_path / "debs", arch="arm64", sources=sources) == [file]
    unpack_deb(file, tmp_path / "out")
    assert (tmp_path / "out/usr/lib/thing").read_text() == "a file\n"
    assert (tmp_path / "out/usr/lib/link").read_text() == "a file\n"
    # It would be this machine's file and not the board's.
    assert not (tmp_path / "out/etc/absolute").is_symlink()


def test_a_package_that_differs_from_its_index_is_refused(repository, tmp_path):
    sources, deb = repository
    deb.write_bytes(deb.read_bytes()[:-4] + b"evil")
    with pytest.raises(EdgeKDError, match="could not fetch"):
        fetch_debs(["emutest"], tmp_path / "debs", arch="arm64", sources=sources)


def test_a_package_that_the_sources_lack_says_what_to_do(repository, tmp_path):
    with pytest.raises(EdgeKDError, match="--sources FILE"):
        fetch_debs(["no-such-package"], tmp_path / "debs", arch="arm64", sources=repository[0])


def tar_of(*members: tuple[str, str, str]) -> tarfile.TarFile:
    """A tar whose members are ``(name, kind, content or target)``."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            if kind == "file":
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content.encode()))
            else:
                info.type = {
                    "symlink": tarfile.SYMTYPE,
                    "hardlink": tarfile.LNKTYPE,
                    "device": tarfile.CHRTYPE,
                }[kind]
                info.linkname = content
                archive.addfile(info)
    stream.seek(0)
    return tarfile.open(fileobj=stream)


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", "file", "x")],
        [("/edgekd-evil", "file", "x")],
        [("a/../../evil", "file", "x")],
        [("a", "symlink", "../.."), ("a/evil", "file", "x")],
        [("usr/a", "symlink", "../../outside")],
        [("a", "hardlink", "../../etc/passwd")],
        [("a", "device", "")],
    ],
    ids=["parent", "absolute", "inner-parent", "through-a-link", "link-out", "hard-link-out", "device"],
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(members, tmp_path):
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    with pytest.raises(EdgeKDError, match=r"not unpacked|not an archive"):
        unpack_tar(tar_of(*members), Path("evil.deb"), target)
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "target"] or not list(
        tmp_path.rglob("evil")
    )


def test_a_link_made_absolute_cannot_be_written_through(tmp_path):
    (tmp_path / "target").mkdir()
    archive = tar_of(("a", "symlink", str(tmp_path)), ("a/evil", "file", "x"))
    unpack_tar(archive, Path("evil.deb"), tmp_path / "target")
    assert (tmp_path / "target/a/evil").read_text() == "x"  # the link was left out: a folder of our own
    assert not (tmp_path / "evil").exists()


def test_a_wheel_that_leads_out_of_its_folder_is_refused(tmp_path):
    file = tmp_path / "evil.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("good.py", "")
        archive.writestr("../evil.py", "")
    with pytest.raises(EdgeKDError, match="leads out"):
        unpack_wheel(file, tmp_path / "target")
    assert not (tmp_path / "evil.py").exists() and not (tmp_path / "target/good.py").exists()


@pytest.mark.parametrize("unpack", [unpack_wheel, unpack_deb])
def test_a_truncated_archive_is_refused(unpack, tmp_path, needs):
    needs("dpkg-deb")
    (tmp_path / "cut").write_bytes(b"!<arch>\ndebian-bin")
    with pytest.raises(EdgeKDError, match="not an archive"):
        unpack(tmp_path / "cut", tmp_path / "target")


def test_without_a_set_up_the_error_says_how(tmp_path):
    with pytest.raises(MissingDependencyError, match=r"edgekd devices emulate --setup"):
        home.userland()


def test_a_set_up_of_another_plan_does_not_count(tmp_path):
    root = home.cache_home() / "root"
    root.mkdir(parents=True)
    manifest = {"plan": "older", "python": "3.11", "runtime_version": "1.0"}
    (root / "edgekd-userland.json").write_text(json.dumps(manifest))
    assert home.find_userland() is None
    (root / "edgekd-userland.json").write_text(json.dumps(manifest | {"plan": home._plan_id()}))
    assert home.find_userland() == home.Userland(root, "3.11", "1.0")
    assert home.remove() > 0
    assert home.find_userland() is None and not home.cache_home().exists()


def test_an_interrupted_set_up_leaves_no_half_userland(repository, monkeypatch):
    monkeypatch.setattr(home, "_has_qemu", lambda: True)
    monkeypatch.setattr(
        home, "fetch_debs", lambda *_, **__: [repository[1].with_name("python3.11-minimal_1.deb")]
    )
    monkeypatch.setattr(home, "fetch_wheels", lambda *_, **__: [])
    with pytest.raises(EdgeKDError):
        home.set_up()
    assert sorted(path.name for path in home.cache_home().iterdir()) == ["lock"]


def test_without_apt_the_error_says_where_it_works(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="Debian or Ubuntu"):
        fetch_debs(["python3"], tmp_path / "debs", arch="arm64")


def test_the_verb_says_what_is_there_and_refuses_nonsense(edgekd, monkeypatch, tmp_path):
    found = edgekd("devices", "emulate", "--json", "-").json()
    assert found["ready"] is False and "--setup" in found["userland"]
    assert not home.cache_home().exists()
    both = edgekd("devices", "emulate", "--setup", "--remove")
    assert both.code == 2 and "one of --setup, --status, --remove" in both.err
    odd = edgekd("devices", "emulate", "--setup", "--sources", tmp_path / "none.list")
    assert odd.code == 2 and "a file that exists" in odd.err
    assert edgekd("devices", "emulate", "--remove").code == 0
