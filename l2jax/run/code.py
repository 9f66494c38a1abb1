"""A person's own network and optimizer, from Python files that the command line names."""

from __future__ import annotations

import hashlib
import sys
import traceback
import types
from pathlib import Path
from typing import Any, NamedTuple

import optax

from l2jax.config import CODE_OPTIONS, OPTIMIZERS, SweepConfig
from l2jax.errors import InvalidInputError


class Code(NamedTuple):
    """What a sweep trains with besides its config.

    Attributes:
      functions: `model` and `optimizer`, for `Sweep`.
      sha256: of the files that they come from, by option.
    """

    functions: dict[str, Any]
    sha256: dict[str, str]


def load_code(config: SweepConfig) -> Code:
    """The model and the optimizer of a config; runs the files that it names.

    Raises:
      InputError: for a file that cannot be run, or does not have the name.
    """
    functions: dict[str, Any] = {}
    digests: dict[str, str] = {}
    modules: dict[Path, tuple[types.ModuleType, str]] = {}
    for option in CODE_OPTIONS:
        source = getattr(config, option)
        if source in OPTIMIZERS:
            functions[option] = getattr(optax, source)
        elif source:
            file, _, name = source.rpartition(":")
            path = Path(file)
            if path not in modules:
                modules[path] = _run(option, source, path)
            module, digests[option] = modules[path]
            if not hasattr(module, name):
                names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
                raise InvalidInputError(option, source, f"one of {', '.join(names) or 'no names'} in {file}")
            functions[option] = getattr(module, name)
    return Code(functions, digests)


def _run(option: str, source: str, path: Path) -> tuple[types.ModuleType, str]:
    """The module that a file makes, and the SHA-256 of the content that was run."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(option, source, f"FILE.py:NAME of a file that can be read ({error.strerror})") from None
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules.setdefault(path.stem, module)  # where dataclasses look up annotations
    sys.path.insert(0, str(path.parent.absolute()))  # for what the file imports, as if it were a script
    try:
        exec(compile(content, path, "exec"), vars(module))
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else 0)
        problem = f"{type(error).__name__} in line {line}: {error}".partition("\n")[0]
        raise InvalidInputError(option, source, f"a file that Python can run ({problem})") from None
    finally:
        sys.path.pop(0)
    return module, hashlib.sha256(content).hexdigest()
