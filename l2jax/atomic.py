"""Files that appear whole or not at all, and checksums that show whether they changed since they were written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SUMS = "SHA256SUMS"
"""One line per file, as `sha256sum` reads and writes it, below a comment with the checksum of these lines."""


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


def write_with_sums(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes files of a folder, by name, and their checksums; the checksums of other files stay."""
    sums = _read_sums(folder) or {}
    # If interrupted from here on, every file is complete, old or new, and no checksum is stale.
    (folder / SUMS).unlink(missing_ok=True)
    for name, content in contents.items():
        write_whole(folder / name, content)
        sums[name] = hashlib.sha256(content).hexdigest()
    _write_sums(folder, sums)


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
    """Checksums of all files in a folder and its subfolders; `sync` also writes them through to the disk."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            if sync:
                to_disk(path)
        elif path != folder / SUMS:
            with path.open("rb") as file:
                sums[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
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
