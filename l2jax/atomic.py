"""Files that appear whole or not at all, and checksums that tell whether they still are as they were written."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

SUMS = "SHA256SUMS"
"""A line a file, as `sha256sum` reads and writes it, below a comment with the checksum of these lines themselves."""


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with contextlib.suppress(OSError):  # it would hide what went wrong before it
            beside.unlink(missing_ok=True)


def write_with_sums(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes files of a folder and their checksums; those of other files stay."""
    sums = _read_sums(folder) or {}
    # An end in between leaves files that are whole, each old or new, but not checksums of others.
    (folder / SUMS).unlink(missing_ok=True)
    for name, content in contents.items():
        write_whole(folder / name, content)
        sums[name] = hashlib.sha256(content).hexdigest()
    _write_sums(folder, sums)


def read_checked(folder: Path, name: str) -> bytes:
    """Reads a file; raises ValueError if it is not as it was written, as far as there is a checksum of it."""
    content = (folder / name).read_bytes()
    sums = _read_sums(folder)
    if sums and sums.get(name, digest := hashlib.sha256(content).hexdigest()) != digest:
        raise ValueError(f"{name} is damaged: it differs from its line in {SUMS}")
    return content


def seal(folder: Path) -> None:
    """Adds checksums of all files in a folder and those within it, and makes sure that they are on the disk."""
    _write_sums(folder, _sums_of_all(folder, to_disk_too=True))
    to_disk(folder)


def check_sealed(folder: Path) -> None:
    """Raises ValueError or OSError unless the files are those that were sealed."""
    if _read_sums(folder) != _sums_of_all(folder):
        raise ValueError("it is not as it was written")


def to_disk(folder: Path) -> None:
    """Makes sure that names of files are on the disk, not only in the memory of the system."""
    if os.name != "posix":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sums_of_all(folder: Path, to_disk_too: bool = False) -> dict[str, str]:
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            if to_disk_too:
                to_disk(path)
        elif path != folder / SUMS:
            with path.open("rb") as file:
                sums[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
                if to_disk_too:
                    os.fsync(file.fileno())
    return sums


def _write_sums(folder: Path, sums: dict[str, str]) -> None:
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    write_whole(folder / SUMS, f"# {hashlib.sha256(lines.encode()).hexdigest()}\n{lines}".encode())


def _read_sums(folder: Path) -> dict[str, str] | None:
    try:
        head, _, lines = (folder / SUMS).read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if head != f"# {hashlib.sha256(lines).hexdigest()}".encode():
        raise ValueError(f"{SUMS} is damaged")
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines.decode().splitlines())}
