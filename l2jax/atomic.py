"""Files and folders that appear whole or not at all, and checksums that show whether they changed since."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

SUMS = "SHA256SUMS"
"""One line per file, as `sha256sum` reads and writes it, below a comment with the checksum of these lines."""
Content = bytes | Callable[[Path], None] | None
"""Of a file; or what writes a file or a folder under the path that it is given; or nothing, if there is to be none."""


@contextlib.contextmanager
def open_whole(path: Path, *, by_several: bool = False) -> Iterator[BinaryIO]:
    """Opens a file for writing that appears under its name, whole, when the block ends without an error.

    Args:
      path: the file. Until then its content is in a hidden file beside it.
      by_several: whether other processes may write the same file at the same time. Each then has a hidden file of its
        own; otherwise one name serves, so that a process that was killed leaves nothing that the next one keeps.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex if by_several else 'partial'}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # it would hide what went wrong before it
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    with open_whole(path) as file:
        file.write(content)


def write_with_sums(folder: Path, contents: Mapping[str, Content]) -> None:
    """Writes files and folders of a folder, by name, and the checksums of all their files; those of others stay."""
    sums = _read_sums(folder) or {}
    # If interrupted from here on, every file is complete, old or new, and no checksum is stale.
    (folder / SUMS).unlink(missing_ok=True)
    for name, content in contents.items():
        sums = {other: digest for other, digest in sums.items() if not _is_in(other, name)}
        if content is None:
            _remove(folder / name)
        elif isinstance(content, bytes):
            write_whole(folder / name, content)
            sums[name] = hashlib.sha256(content).hexdigest()
        else:
            sums |= _write_whole_by(content, folder / name)
    _write_sums(folder, sums)


def _write_whole_by(write: Callable[[Path], None], path: Path) -> dict[str, str]:
    """Writes a file or folder that appears whole or not at all, and returns the checksums of its files."""
    temporary = path.with_name(f".{path.name}.partial")
    _remove(temporary)
    try:
        write(temporary)
        sums = _file_sums(temporary, sync=True)
        if temporary.is_dir():
            to_disk(temporary)
        _replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # it would hide what went wrong before it
            _remove(temporary)
    return {Path(path.name, name).as_posix(): digest for name, digest in sums.items()}


def _replace(new: Path, path: Path) -> None:
    """Gives a file or folder its name. No system replaces a folder at once, so the one before steps aside."""
    if path.is_dir():
        _remove(_aside(path))
        path.rename(_aside(path))
    try:
        new.replace(path)
    except OSError:
        if _aside(path).exists():
            _aside(path).rename(path)
        raise
    _remove(_aside(path))


def whole_folder(path: Path) -> Path:
    """Where a folder is: under its name; or aside, if the process that was about to replace it was killed just then."""
    return _aside(path) if not path.exists() and _aside(path).exists() else path


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def _remove(path: Path) -> None:
    """Removes a file or a folder, if it is there: a folder is never seen in parts under its name."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if not path.name.startswith("."):
        hidden = path.with_name(f".{path.name}.removed")
        shutil.rmtree(hidden, ignore_errors=True)
        path = path.rename(hidden)
    shutil.rmtree(path)


def _is_in(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}/")


def read_checked(folder: Path, name: str) -> bytes:
    """Reads a file of a folder, and compares it with its checksum if there is one.

    Raises:
      ValueError: if the file, or the list of checksums, is not as it was written.
      OSError: if it cannot be read.
    """
    content = (folder / name).read_bytes()
    sums = _read_sums(folder)
    if sums and sums.get(name, digest := hashlib.sha256(content).hexdigest()) != digest:
        raise ValueError(f"{name} is damaged: it differs from its line in {SUMS}")
    return content


def check_folder(folder: Path, name: str) -> None:
    """Compares the files of a folder in a folder with their checksums if there are any.

    Raises:
      ValueError: if a file is not as it was written, is missing, or is new; or if the list of checksums is damaged.
      OSError: if one cannot be read.
    """
    expected = {path: digest for path, digest in (_read_sums(folder) or {}).items() if _is_in(path, name)}
    if expected and expected != {f"{name}/{path}": digest for path, digest in _file_sums(folder / name).items()}:
        raise ValueError(f"{name} is damaged: it differs from its lines in {SUMS}")


def seal(folder: Path) -> None:
    """Adds checksums of all files in a folder and its subfolders, and makes sure that everything is on the disk."""
    _write_sums(folder, _file_sums(folder, sync=True))
    to_disk(folder)


def check_sealed(folder: Path) -> None:
    """Compares a folder with the checksums that `seal` added.

    Raises:
      ValueError: if a file is not as it was written, is missing, or is new.
      OSError: if one cannot be read.
    """
    if _read_sums(folder) != _file_sums(folder):
        raise ValueError("it is not as it was written")


def to_disk(folder: Path) -> None:
    """Makes sure that the names of a folder's files are on the disk, not only in the system's memory."""
    if os.name != "posix":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_sums(folder: Path, *, sync: bool = False) -> dict[str, str]:
    """Checksums of a file, or of all in a folder and its subfolders; `sync` also writes them through to the disk."""
    sums = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        if path.is_dir():
            if sync:
                to_disk(path)
        elif path != folder / SUMS:
            with path.open("rb") as file:
                sums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
                if sync:
                    os.fsync(file.fileno())
    return sums


def _write_sums(folder: Path, sums: dict[str, str]) -> None:
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    write_whole(folder / SUMS, f"# {hashlib.sha256(lines.encode()).hexdigest()}\n{lines}".encode())


def _read_sums(folder: Path) -> dict[str, str] | None:
    """Checksums by name; None if there are none."""
    try:
        head, _, lines = (folder / SUMS).read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if head != f"# {hashlib.sha256(lines).hexdigest()}".encode():
        raise ValueError(f"{SUMS} is damaged")
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines.decode().splitlines())}
