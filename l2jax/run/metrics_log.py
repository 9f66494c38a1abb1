"""metrics.jsonl: one line per epoch of a chunk, written as it happens."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from l2jax.atomic import open_whole
from l2jax.engine.ledger import EpochRecord


def metrics_log(path: Path, records: Iterable[EpochRecord]) -> Callable[[EpochRecord], None]:
    """Writes the file with these records, and returns a function that appends another one."""
    with open_whole(path) as file:  # line by line: of very many trials they are gigabytes
        file.writelines(map(_json_line, records))
    return lambda record: _append(path, _json_line(record))


def _json_line(record: EpochRecord) -> bytes:
    """One record: each metric a list over its trials, with null for what is not finite."""
    line: dict[str, Any] = {"epoch": record.number, "trials": record.indices, "seconds": record.seconds}
    for name in sorted(record.metrics):
        values = record.metrics[name]
        line[name] = np.where(np.isfinite(values), values, np.array(None)).tolist()  # JSON has no NaN
    return json.dumps(line).encode() + b"\n"


def _append(path: Path, line: bytes) -> None:
    """Appends a line to a file, or leaves the file as it was."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        size = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError("no space left for metrics.jsonl")
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
