"""Files that several machines see, and checkpoints among them."""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from l2jax.atomic import write_whole
from l2jax.checkpoint.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from l2jax.engine.snapshot import Snapshot
from l2jax.errors import InvalidInputError, reason

# fsspec is imported where it is used: most runs stay on one machine.

ACCEPTED = "a folder that all machines see, or an address that fsspec knows, such as s3://bucket/folder"


class Storage:
    """Files by name, in a folder or at an address such as s3://bucket/folder. A file is there whole or not at all.

    Object stores write that way; in folders it is done here. It can be pickled.

    Attributes:
      address: of the folder, as fsspec takes it.
    """

    def __init__(self, address: str):
        self.address = address

    @functools.cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system of fsspec, and the path in it."""
        import fsspec

        if "://" not in self.address:  # any name, even one that fsspec would take for an address
            return fsspec.filesystem("file"), str(Path(self.address).expanduser().absolute())
        try:
            file_system, path = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:  # no such protocol, or its package is missing
            raise InvalidInputError("storage", self.address, f"{ACCEPTED} ({reason(error)})") from None
        return file_system, path

    def __getstate__(self) -> dict[str, str]:
        return {"address": self.address}

    @property
    def folder(self) -> Path | None:
        """The folder, where it is one of this machine's file system."""
        from fsspec.implementations.local import LocalFileSystem

        file_system, path = self._place
        return Path(path) if isinstance(file_system, LocalFileSystem) else None

    def __truediv__(self, name: str) -> Storage:
        return Storage(f"{self.address.rstrip('/')}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole; raises OSError if it cannot."""
        if self.folder is not None:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        else:
            file_system, root = self._place
            file_system.pipe_file(f"{root}/{name}", content)

    def read(self, name: str) -> bytes:
        """Reads a file; raises FileNotFoundError if it is not there."""
        file_system, root = self._place
        return file_system.cat_file(f"{root}/{name}")

    def names(self, pattern: str) -> list[str]:
        """The names that match a pattern such as "*.zip" or "*/ledger.npz", sorted."""
        return sorted(self.versions(pattern))

    def versions(self, pattern: str) -> dict[str, Any]:
        """By the names that match a pattern, what is another value when the file was written again."""
        file_system, root = self._place
        file_system.invalidate_cache()  # others write there, too
        depth = len(PurePosixPath(pattern).parts)
        found = file_system.find(root, maxdepth=depth, detail=True) if file_system.exists(root) else {}
        versions = {}
        for path, facts in found.items():
            name = PurePosixPath(path).relative_to(root)
            if len(name.parts) == depth and name.match(pattern):
                versions[str(name)] = facts
        return versions

    def exists(self, name: str) -> bool:
        file_system, root = self._place
        file_system.invalidate_cache()
        return file_system.exists(f"{root}/{name}")

    def remove(self, name: str) -> None:
        """Removes a file, if it is there and can be removed."""
        file_system, root = self._place
        with contextlib.suppress(OSError):
            file_system.rm_file(f"{root}/{name}")


class Archives:
    """Checkpoints as numbered ZIP files in a storage, as `Place` describes them: one file each, so none is in parts."""

    def __init__(self, storage: Storage):
        self.storage = storage

    def numbers(self) -> list[int]:
        return [int(PurePosixPath(name).stem) for name in self.storage.names("[0-9]*.zip")]

    def write(self, number: int, checkpoint: Checkpoint) -> None:
        content = io.BytesIO()
        with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(content, "w") as archive:
            folder = Path(temporary, "checkpoint")
            write_checkpoint(folder, checkpoint)
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder))
        self.storage.write(_file_name(number), content.getvalue())

    def read(self, number: int, check: Callable[[Snapshot], None]) -> Checkpoint:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "checkpoint")
            with zipfile.ZipFile(io.BytesIO(self.storage.read(_file_name(number)))) as archive:
                archive.extractall(folder)
            return read_checkpoint(folder, check)

    def remove(self, number: int) -> None:
        self.storage.remove(_file_name(number))

    def name(self, number: int) -> str:
        return f"{self.storage.address}/{_file_name(number)}"


def _file_name(number: int) -> str:
    return f"{number:06}.zip"
