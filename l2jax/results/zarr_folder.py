"""results.zarr: the metrics of very many trials as a Zarr folder, which is written and read piece by piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr
from numcodecs import Blosc
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from l2jax.errors import UnusableFileError

PIECE = 2**23
"""Bytes of a piece, a file of its own, before it is packed."""
FORMAT: Any = 2
"""The format that programs of any age read, and that has a type for text."""


def write_zarr(data: xr.Dataset, path: Path) -> None:
    """Writes one variable after the other."""
    encoding = {
        str(name): {"chunks": piece_shape(variable), "compressors": (Blosc("zstd", clevel=1),), "_FillValue": None}
        for name, variable in data.variables.items()
    }
    data.drop_encoding().to_zarr(
        path, mode="w-", zarr_format=FORMAT, consolidated=True, encoding=encoding, write_empty_chunks=True
    )


def piece_shape(variable: xr.Variable) -> tuple[int, ...]:
    """The shape of a variable's pieces: of as few epochs as make up a piece, as most readers want the last one alone.

    Otherwise the last dimensions are whole, so that pieces follow each other in memory.
    """
    shape = [max(size, 1) for size in variable.shape]
    left = max(1, PIECE // variable.dtype.itemsize)
    order = [axis for axis, name in enumerate(variable.dims) if name != "epoch"]
    order = [axis for axis, name in enumerate(variable.dims) if name == "epoch"] + order
    for axis in reversed(order):
        shape[axis] = min(shape[axis], left)
        left = max(1, left // shape[axis])
    return tuple(shape)


def read_zarr(path: Path) -> xr.Dataset:
    """The variables, each of which is read when it is used, and not kept.

    Once another folder is under this name, reading raises InputError, since its trials may be others.
    """
    folder: Any = _Folder(path.absolute())  # xarray takes stores of Zarr, too
    return xr.open_dataset(
        folder,
        engine="zarr",
        chunks=None,
        cache=False,
        consolidated=True,
        zarr_format=FORMAT,
        mask_and_scale=False,
        decode_times=False,
    ).drop_encoding()


class _Folder(LocalStore):
    """A Zarr folder that is read as it was when it was opened, or not at all: Zarr takes missing files for zeros."""

    def __init__(self, root: Path | str, *, read_only: bool = True):
        super().__init__(root, read_only=True)
        self.stamp = _stamp(self.root)

    async def get(self, key: str, prototype: BufferPrototype | None = None, byte_range: Any = None) -> Buffer | None:
        content = await super().get(key, prototype, byte_range)
        is_missing = content is None and not Path(key).name.startswith(".z") and key != "zarr.json"
        if is_missing or _stamp(self.root) != self.stamp:
            accepted = "it has changed since; l2jax.load_results reads the folder again"
            raise UnusableFileError("run_dir", self.root, accepted)
        return content


def _stamp(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
