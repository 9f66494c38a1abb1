"""Damage to files: random changes of their bytes, and pickles that would run a command."""

import os
import pickle
import random
from pathlib import Path


def damage(path: Path, rng: random.Random) -> None:
    """Changes a file: a bit, a byte, a stretch of bytes, or its length."""
    content = bytearray(path.read_bytes())
    place, size = rng.randrange(len(content) or 1), rng.choice([1, 7, 100])
    before = bytes(content)
    match rng.choice(["bit", "byte", "zeros", "noise", "cut", "empty", "longer", "shifted"]):
        case "bit" if content:
            content[place] ^= 1 << rng.randrange(8)
        case "byte" if content:
            content[place] = rng.randrange(256)
        case "zeros":
            content[place : place + size] = bytes(len(content[place : place + size]))
        case "noise":
            content[place : place + size] = rng.randbytes(len(content[place : place + size]))
        case "cut":
            del content[place:]
        case "empty":
            content.clear()
        case "longer":
            content += rng.randbytes(size)
        case "shifted":
            del content[place : place + size]
    if bytes(content) == before:
        content += b"0"
    path.write_bytes(content)


def list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class CreatesFile:
    """An object whose pickle creates a file in the working folder when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch executed",)


HARMFUL = pickle.dumps(CreatesFile())


def assert_nothing_was_executed() -> None:
    """Asserts that no `HARMFUL` pickle was loaded in the working folder, and that one does what it says."""
    assert not Path("executed").exists()
    pickle.loads(HARMFUL)
    assert Path("executed").exists()
