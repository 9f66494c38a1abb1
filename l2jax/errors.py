"""Errors in what a person gave, each in one line."""

from __future__ import annotations

import copyreg
import os
from typing import Any


class InputError(ValueError):
    """Something that a person gave cannot be used; the message is one line.

    Attributes:
      option: the option or argument that is to blame.
    """

    def __init__(self, option: str, message: str):
        super().__init__(f"{option}: {message}")
        self.option = option

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class InvalidInputError(InputError):
    """A value that is not accepted: the message says which option, what was given and what is accepted."""

    def __init__(self, option: str, given: object, accepted: str):
        super().__init__(option, f"got {_one_line(given)}; accepted: {accepted}")
        self.given, self.accepted = given, accepted


class UnusableFileError(InputError):
    """A file, folder or address that cannot be used: the message says which one, in full, and why."""

    def __init__(self, option: str, path: str | os.PathLike[str], problem: str):
        super().__init__(option, f"{path}: {problem}")


class NothingTrainedError(RuntimeError):
    """A sweep has ended before its first epoch was complete."""


class SweepWarning(UserWarning):
    """Something about a sweep that a person should know before its results are believed."""


def reason(error: BaseException) -> str:
    """Why an operation failed, in one line, from the error that it raised."""
    message = error.strerror if isinstance(error, OSError) else None
    lines = (message or str(error)).strip().splitlines()
    return lines[0].rstrip(":.") if lines else type(error).__name__


def _one_line(given: object) -> str:
    text = str(given)
    if not text.isprintable():
        text = repr(text)
    return (text if len(text) <= 60 else f"{text[:57]}...") or "nothing"
