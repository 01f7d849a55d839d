"""Archives into a folder, and nothing beside it: every member's path is checked before anything is written."""

from __future__ import annotations

import posixpath
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from edgekd.errors import EdgeKDError, fault


def unpack_wheel(file: Path, folder: Path) -> None:
    """A wheel's files.

    Raises:
        EdgeKDError: a member would land outside ``folder``, or the file is no archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                _checked(name, file)
            archive.extractall(folder)  # noqa: S202  (every name was checked)
    except zipfile.BadZipFile as error:
        raise _broken(file, str(error)) from None


def unpack_deb(file: Path, folder: Path) -> None:
    """A Debian package's files, as the calling user; ``dpkg-deb`` reads the outer format.

    Raises:
        EdgeKDError: as :func:`unpack_wheel`.
    """
    with subprocess.Popen(  # noqa: S603
        ["dpkg-deb", "--fsys-tarfile", str(file)],  # noqa: S607
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                unpack_tar(archive, file, folder)
        except tarfile.TarError as error:
            raise _broken(file, str(error)) from None
        finally:
            process.stdout.close()
    if process.returncode:
        raise _broken(file, f"dpkg-deb ended with {process.returncode}")


def unpack_tar(archive: tarfile.TarFile, file: Path, folder: Path) -> None:
    """A tar's folders, files and links. Links to absolute paths mean the board's own and are left out."""
    for member in archive:
        path = folder / _checked(member.name, file)
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(folder.resolve()):
            raise _escape(member.name, file)
        if member.issym():
            target = posixpath.join(posixpath.dirname(member.name), member.linkname)
            if not member.linkname.startswith("/"):
                _checked(posixpath.normpath(target), file)
                path.unlink(missing_ok=True)
                path.symlink_to(member.linkname)
        elif member.islnk():
            path.unlink(missing_ok=True)
            shutil.copy2(folder / _checked(member.linkname, file), path, follow_symlinks=False)
        elif member.isfile():
            stream = archive.extractfile(member)
            assert stream is not None
            path.unlink(missing_ok=True)
            with path.open("wb") as out:
                shutil.copyfileobj(stream, out)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)
        else:
            raise _broken(file, f"{member.name}: neither file nor folder nor link")


def _checked(name: str, file: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise _escape(name, file)
    return path


def _escape(name: str, file: Path) -> EdgeKDError:
    what = "a path in the archive leads out of its folder: not unpacked"
    return EdgeKDError(fault(str(file), what, got=name, fix="remove the file and fetch it again"))


def _broken(file: Path, got: str) -> EdgeKDError:
    fix = "remove the file and fetch it again"
    return EdgeKDError(fault(str(file), "not an archive that can be unpacked", got=got, fix=fix))
