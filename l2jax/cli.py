"""The command: read the options, train the sweep, save what came out and tell the answer."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import difflib
import functools
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from rich.console import Console
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from l2jax.config import DEFAULT_STRENGTHS, RECIPES, InvalidInput, SweepConfig
from l2jax.results import write_whole
from l2jax.terminal import print_results, shown

if TYPE_CHECKING:
    from l2jax.engine import Epoch

# JAX and matplotlib take seconds to import: `run` does it, when --help and wrong options are out of the way.


@dataclasses.dataclass(frozen=True)
class Options(SweepConfig):
    """What the command takes: a sweep, and how to run it from a terminal."""

    recipe: str = "quick"
    """Named sweep, of which the other options change parts."""
    list_recipes: bool = False
    """Print the recipes."""
    run_dir: Path | None = None
    """New or empty folder; none: runs/DATE_TIME."""
    profile: Path | None = None
    """Folder for a profiler trace of one epoch."""
    quiet: bool = False
    """Print nothing but errors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("run_dir", "profile"):
            path = getattr(self, option)
            with contextlib.suppress(OSError):
                if path is None or (isinstance(path, Path) and not (path.exists() and any(path.iterdir()))):
                    continue
            raise InvalidInput(option, path, "a new or empty folder, where files can be written")

    @property
    def sweep(self) -> SweepConfig:
        """The sweep alone: what it is does not depend on the terminal."""
        return SweepConfig(**{name: getattr(self, name) for name in SweepConfig.__dataclass_fields__})


FLAGS = {name: "--" + name.replace("_", "-") for name in Options.__dataclass_fields__}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: the words after the command's name; None: those of this process.

    Returns:
      The exit code: 0; 2 after bad input (one line on stderr says what); 130 after Ctrl-C.
    """
    try:
        options = parse(argv)
        if options.list_recipes:
            print("\n".join(f"{name:8} {_differences(recipe)}" for name, recipe in RECIPES.items()))
            return 0
        return run(options)
    except InvalidInput as error:
        option = FLAGS.get(error.option, error.option)
        print(f"error: {option}{str(error).removeprefix(error.option)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: no results saved", file=sys.stderr)
        return 130


def parse(argv: Sequence[str] | None) -> Options:
    """Reads the words of a command line.

    Raises:
      InvalidInput: for words that cannot be used.
      SystemExit: after --help.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", nargs="?", const="", default="quick")
    recipe = first.parse_known_args(argv)[0].recipe
    if recipe not in RECIPES:
        raise InvalidInput("recipe", recipe, ", ".join(RECIPES))
    registry = ConstructorRegistry()
    registry.primitive_rule(_option_type)
    options, unknown = tyro.cli(
        # Not the class itself, whose errors tyro would catch, and draw a box around.
        functools.partial(Options, **vars(RECIPES[recipe])),
        prog="l2jax",
        description="Trains a CNN at every L2 strength at once: does L2 regularisation help?",
        args=argv,
        config=(tyro.conf.FlagCreatePairsOff,),
        registry=registry,
        return_unknown_args=True,
    )
    if unknown:
        near = difflib.get_close_matches(unknown[0].partition("=")[0], FLAGS.values(), n=1)
        raise InvalidInput("command line", unknown[0], " or ".join([*near, "what --help lists"]))
    return options


def _option_type(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Tells tyro how to read an option: any words will do, so that the checks are SweepConfig's alone."""

    def one(read: Callable[[str], object]) -> Callable[[list[str]], object]:
        def read_words(words: list[str]) -> object:
            try:
                (word,) = words
                return read(word)
            except ValueError:
                return " ".join(words)

        return read_words

    def show(default: object) -> list[str]:
        if isinstance(default, tuple):
            return DEFAULT_STRENGTHS.split() if default == SweepConfig.l2 else [f"{value:g}" for value in default]
        none = "all" if info.type == int | None else "none"
        return [none if default is None else str(default)]

    types: dict[Any, tuple[str, Callable[[list[str]], object]]] = {
        tuple[float, ...]: ("FLOAT ...", tuple),
        int: ("INT", one(int)),
        int | None: ("INT|all", one(lambda word: None if word == "all" else int(word))),
        float: ("FLOAT", one(float)),
        int | str | None: ("INT|test", one(lambda word: word if word == "test" else int(word))),
        str: ("NAME", one(str)),
        str | None: ("PATH", one(str)),
        Path | None: ("PATH", one(Path)),
    }
    if info.type not in types:
        return None
    metavar, read = types[info.type]
    return PrimitiveConstructorSpec("*", metavar, read, is_instance=lambda _: True, str_from_instance=show)


def _differences(recipe: SweepConfig) -> str:
    """The options in which a recipe differs from the default sweep."""
    words = []
    for name, value in vars(recipe).items():
        if value != getattr(RECIPES["quick"], name):
            values = value if isinstance(value, tuple) else ["all" if value is None else value]
            words += [FLAGS[name], *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]
    return " ".join(words) or "the default"


def run(options: Options) -> int:
    """Trains the sweep, saves and prints what came out; returns the exit code."""
    # Progress goes to stderr and the outcome to stdout, so that each can be sent elsewhere.
    progress = Console(stderr=True, quiet=options.quiet, highlight=False)
    config = options.sweep
    with progress.status(f"loading {config.dataset}"):
        from l2jax import plot
        from l2jax.data import load_dataset
        from l2jax.engine import Sweep

        sweep = Sweep(config, load_dataset(config.dataset, config.data_dir))
    if options.profile:
        _make_folder("profile", options.profile)
    run_dir = _make_run_dir(options.run_dir)
    try:
        with _first_ctrl_c() as pressed:
            written = 0
            for _ in shown(sweep, progress, options.profile):
                written = _log(sweep.history, run_dir / "metrics.jsonl", written)
                if pressed.is_set():
                    break
            with progress.status("testing, saving, drawing"):
                results = sweep.results()
                results.save(run_dir)
                for name, figure in plot.figures(results):
                    png = io.BytesIO()
                    figure.savefig(png, format="png", dpi=150)
                    write_whole(run_dir / f"{name}.png", png.getvalue())
    finally:
        with contextlib.suppress(OSError):  # a folder with something in it stays
            run_dir.rmdir()
    print_results(results, run_dir, Console(quiet=options.quiet, highlight=False))
    if sweep.epochs_left:
        done = len(sweep.history)
        print(f"interrupted: saved the {done} of {done + sweep.epochs_left} epochs that are complete", file=sys.stderr)
        return 130
    return 0


def _make_run_dir(run_dir: Path | None) -> Path:
    if run_dir:
        _make_folder("run_dir", run_dir)
        return run_dir
    new, others = Path("runs", f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"), 1
    while True:
        try:
            _make_folder("run_dir", new, exist_ok=False)
            return new
        except FileExistsError:  # another run began in this second
            others += 1
            new = new.with_name(f"{new.name.partition('_run')[0]}_run{others}")


def _make_folder(option: str, path: Path, exist_ok: bool = True) -> None:
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise InvalidInput(option, path, f"a folder that can be written ({error.strerror})") from None
    if not os.access(path, os.W_OK):
        raise InvalidInput(option, path, "a folder that can be written")


@contextlib.contextmanager
def _first_ctrl_c() -> Iterator[threading.Event]:
    """Gives an event that the first Ctrl-C sets; the second one interrupts as usual."""
    pressed = threading.Event()

    def on_first(*_: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Straight to the file: a print that this came in the middle of could not stand another one.
        os.write(2, b"\nstopping after this epoch (Ctrl-C again: at once, without saving)\n")

    usual = signal.signal(signal.SIGINT, on_first)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, usual)


def _log(history: Sequence[Epoch], path: Path, written: int) -> int:
    """Appends the last epoch; writes all anew where others are gone, as after a chunk that ran out of memory."""
    if len(history) == written + 1:
        with path.open("a") as lines:
            lines.write(_json_line(history[-1]))
    else:
        write_whole(path, "".join(map(_json_line, history)).encode())
    return len(history)


def _json_line(epoch: Epoch) -> str:
    """One epoch of the trials from "first_trial" on: each metric a list over trials, null where it is not finite."""
    line: dict[str, Any] = {"epoch": epoch.epoch, "first_trial": epoch.trials.start, "seconds": epoch.seconds}
    for name, values in epoch.metrics.items():
        line[name] = np.where(np.isfinite(values), values, np.array(None)).tolist()  # JSON has no NaN
    return json.dumps(line) + "\n"
