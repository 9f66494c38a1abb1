"""What a run says: in what the terminal can show, and never at the price of what it does."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO, cast

from rich.console import Console

from l2jax.errors import reason


class CarelessStream(io.TextIOBase):
    """A text stream on another one. What that cannot encode is spelt out, and what it cannot take is lost.

    Attributes:
      stream: the other one; None where a process has none.
      error: why it could not take something, once that has happened.
    """

    def __init__(self, stream: TextIO | None):
        self.stream = stream
        self.error: Exception | None = None

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return getattr(self.stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        with contextlib.suppress(ValueError):  # it is closed
            return self.stream is not None and self.stream.isatty()
        return False

    def fileno(self) -> int:
        return self.stream.fileno() if self.stream else super().fileno()

    def write(self, text: str) -> int:
        if self.stream is not None:
            try:
                self.stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
                self.stream.flush()
            except (OSError, ValueError) as error:
                self.error = error
                _discard(self.stream)
        return len(text)


def progress_console(*, quiet: bool) -> Console:
    """The console for progress and warnings: standard error, so that results can be redirected alone.

    In a notebook it draws with ipywidgets; without them it prints lines.
    """
    # Rich shows widgets of a quiet console, too, and warns where it has none.
    draws_widgets = not quiet and importlib.util.find_spec("ipywidgets") is not None
    stream = cast(TextIO, CarelessStream(sys.stderr))
    return Console(file=stream, quiet=quiet, highlight=False, force_jupyter=None if draws_widgets else False)


@contextlib.contextmanager
def results_console(*, quiet: bool) -> Iterator[Console]:
    """The console for results, standard output.

    Raises:
      OSError: at the end, if standard output could not take them. A reader who needs no more, such as `head`, is none.
    """
    stream = CarelessStream(sys.stdout)
    yield Console(file=cast(TextIO, stream), quiet=quiet, highlight=False)
    if stream.error and not isinstance(stream.error, BrokenPipeError):
        raise OSError(f"standard output: {reason(stream.error)}")


def can_show(text: str, console: Console) -> bool:
    """Whether the encoding of a console has these characters."""
    try:
        text.encode(console.encoding)
    except UnicodeEncodeError:
        return False
    return True


def say(line: str) -> None:
    """Prints a line on standard error, even of a quiet run."""
    CarelessStream(sys.stderr).write(f"{line}\n")


def _discard(stream: TextIO) -> None:
    """Makes a stream forget what it holds, which Python would otherwise try to write at the end, and fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
