"""The command: read the options, train the sweep, save what came out and tell the answer."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import functools
import io
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn
from rich.table import Table
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from l2jax.config import DEFAULT_STRENGTHS, InvalidInput, SweepConfig
from l2jax.results import Results, answer, write_whole

if TYPE_CHECKING:
    from l2jax.engine import Epoch

# JAX and matplotlib take seconds to import: `run` does it, when --help and wrong options are out of the way.


@dataclasses.dataclass(frozen=True)
class Options(SweepConfig):
    """What the command takes: a sweep, and how to run it from a terminal."""

    run_dir: Path | None = None
    """New or empty folder."""
    quiet: bool = False
    """Print nothing but errors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run_dir is None:
            return
        with contextlib.suppress(OSError):
            if isinstance(self.run_dir, Path) and not (self.run_dir.exists() and any(self.run_dir.iterdir())):
                return
        raise InvalidInput("run_dir", self.run_dir, "a new or empty folder, where files can be written")

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
        return run(parse(argv))
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
    registry = ConstructorRegistry()
    registry.primitive_rule(_option_type)
    options, unknown = tyro.cli(
        functools.partial(Options),  # tyro would catch the errors of a class, and draw a box around them
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
        return DEFAULT_STRENGTHS.split() if isinstance(default, tuple) else [str(default or "runs/DATE_TIME")]

    types: dict[Any, tuple[str, Callable[[list[str]], object]]] = {
        tuple[float, ...]: ("STRENGTH ...", tuple),
        int: ("INT", one(int)),
        int | None: ("INT|all", one(lambda word: None if word == "all" else int(word))),
        float: ("FLOAT", one(float)),
        str: ("NAME", one(str)),
        Path | None: ("PATH", one(Path)),
    }
    if info.type not in types:
        return None
    metavar, read = types[info.type]
    return PrimitiveConstructorSpec("*", metavar, read, is_instance=lambda _: True, str_from_instance=show)


def run(options: Options) -> int:
    """Trains the sweep, saves and prints what came out; returns the exit code."""
    # Progress goes to stderr and the outcome to stdout, so that each can be sent elsewhere.
    progress = Console(stderr=True, quiet=options.quiet, highlight=False)
    config = options.sweep
    with progress.status(f"loading {config.dataset}"):
        from l2jax import plot
        from l2jax.data import load_dataset
        from l2jax.engine import Sweep

        sweep = Sweep(config, load_dataset(config.dataset))
    run_dir = _make_run_dir(options.run_dir)
    try:
        with _first_ctrl_c() as pressed:
            for epoch in _shown(sweep.epochs(), config, progress):
                with (run_dir / "metrics.jsonl").open("a") as lines:
                    lines.write(_json_line(epoch, config))
                if pressed.is_set():
                    break
            with progress.status("testing, saving, drawing"):
                results = sweep.results()
                results.save(run_dir)
                for draw in (plot.loss_curves, plot.validation_curve):
                    png = io.BytesIO()
                    draw(results).savefig(png, format="png", dpi=150)
                    write_whole(run_dir / f"{draw.__name__}.png", png.getvalue())
    finally:
        with contextlib.suppress(OSError):  # a folder with something in it stays
            run_dir.rmdir()
    _print(results, run_dir, Console(quiet=options.quiet, highlight=False))
    done = results.data.sizes["epoch"]
    if done < config.epochs:
        print(f"interrupted: saved the {done} of {config.epochs} epochs that are complete", file=sys.stderr)
        return 130
    return 0


def _make_run_dir(run_dir: Path | None) -> Path:
    name, others = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}", 1
    new = run_dir or Path("runs", name)
    while True:
        try:
            new.mkdir(parents=True, exist_ok=run_dir is not None)
            return new
        except FileExistsError:  # by default: another run began in this second
            others += 1
            new = Path("runs", f"{name}_{others}")
        except OSError as error:
            raise InvalidInput("run_dir", new, f"a folder that can be written ({error.strerror})") from None


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


def _shown(epochs: Iterable[Epoch], config: SweepConfig, console: Console) -> Iterator[Epoch]:
    """Passes the epochs on and shows how far they are: a bar on a terminal, some 20 plain lines elsewhere."""
    interactive = console.is_interactive
    line_every = math.ceil(config.epochs / 20)
    trials = f"{config.num_trials} trials"
    start, left = math.nan, ""
    columns = (SpinnerColumn(), "{task.description}", BarColumn(bar_width=None), "{task.fields[speed]}")
    with Progress(*columns, console=console, transient=True, expand=True, disable=not interactive) as bar:
        task = bar.add_task(f"epoch 0/{config.epochs}", total=config.epochs, speed=f"{trials}, compiling")
        for epoch in epochs:
            # The first epoch includes compilation: it does not count in the time left.
            if epoch.epoch == 1:
                start = time.monotonic()
            else:
                seconds = (time.monotonic() - start) / (epoch.epoch - 1) * (config.epochs - epoch.epoch)
                left = f", {datetime.timedelta(seconds=round(seconds))} left"
            count = f"epoch {epoch.epoch}/{config.epochs}"
            speed = f"{trials}, {epoch.examples_per_second:,.0f} trial-examples/s{left}"
            bar.update(task, completed=epoch.epoch, description=count, speed=speed)
            if not interactive and (epoch.epoch % line_every == 0 or epoch.epoch in (1, config.epochs)):
                console.print(f"{count}: {speed}")
            yield epoch


def _json_line(epoch: Epoch, config: SweepConfig) -> str:
    """One epoch: each metric is a list over strengths of lists over seeds, null where it is not finite."""
    line: dict[str, Any] = {"epoch": epoch.epoch, "seconds": epoch.seconds}
    for name, values in epoch.metrics.items():
        finite = np.where(np.isfinite(values), values, None)  # JSON has no NaN
        line[name] = finite.reshape(len(config.l2), config.seeds).tolist()
    return json.dumps(line) + "\n"


def _print(results: Results, run_dir: Path, console: Console) -> None:
    """Prints a table with a row a strength, the answer, and where the rest is."""
    chosen: dict[float, str] = {}
    with contextlib.suppress(ValueError):  # where every strength has a diverged trial, none is the best
        chosen[results.best(rule="1se")] = "one s.e."
        lowest = results.best(rule="min")
        chosen[lowest] = "both" if lowest in chosen else "minimum"

    def cell(value: float, spec: str, before: str = "") -> str:
        return f"{before}{value:{spec}}" if math.isfinite(value) else ""

    title = f"epoch {results.data.sizes['epoch']}: mean over seeds ± standard error"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("l2", "validation loss", "training loss", "gap", "validation accuracy", "test accuracy"):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    table.add_column("best by", no_wrap=True)
    for l2, row in results.table().iterrows():
        table.add_row(
            f"{l2:.3g}",
            cell(row.val_loss, ".4f") + cell(row.val_loss_se, ".4f", before=" ± "),
            cell(row.train_loss, ".4f"),
            cell(row.gap, ".4f"),
            cell(row.val_accuracy, ".1%"),
            cell(row.test_accuracy, ".1%"),
            f"{row.num_diverged:.0f} diverged" if row.num_diverged else chosen.get(l2, ""),
            style="bold" if l2 in chosen else "",
        )
    console.print(table)
    console.print(answer(results), markup=False)
    console.print(f"\nPictures, tables and settings: {run_dir}", markup=False, soft_wrap=True)
    console.print(f"To read them back: l2jax.load_results({str(run_dir)!r})", markup=False, soft_wrap=True)
