"""The command line: its options, and how it ends."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from l2jax.config import CODE_OPTIONS, DEFAULT_STRENGTHS, HYPERPARAMETERS, RECIPES, SweepConfig, SweptValues
from l2jax.errors import InputError, InvalidInputError
from l2jax.results.files import read_config
from l2jax.run.options import RunOptions

# JAX and matplotlib take seconds to import: `l2jax.run.session` does it, after --help and wrong options.


T = TypeVar("T", SweepConfig, RunOptions)
SILENCE = logging.NullHandler()
"""Without a handler, Python prints what libraries log as a warning."""


class Command(NamedTuple):
    """A command line: what to sweep, and how to run it."""

    sweep: SweepConfig
    run: RunOptions


def _one(read: Callable[[str], object]) -> Callable[[list[str]], object]:
    """Reads an option of one word. Words that cannot be read stay as they are, for the checks to refuse."""

    def read_words(words: list[str]) -> object:
        try:
            (word,) = words
            return read(word)
        except ValueError:
            return " ".join(words)

    return read_words


def _number(word: str) -> int | float:
    """A whole number, or a fraction."""
    try:
        return int(word)
    except ValueError:
        return float(word)


def _show(default: object, none: str = "none") -> list[str]:
    """Writes the default of an option, and None in its own word."""
    if isinstance(default, tuple):
        return [*DEFAULT_STRENGTHS.split()] if default == SweepConfig.l2 else [f"{value:g}" for value in default]
    return [none if default is None else str(default)]


_INT_OR_NONE = PrimitiveConstructorSpec("*", "INT", _one(int), is_instance=lambda _: True, str_from_instance=_show)
_CODE = PrimitiveConstructorSpec("*", "FILE.py:NAME", _one(str), is_instance=lambda _: True, str_from_instance=_show)


def _read_address(words: list[str]) -> object:
    """An address, or without a word that of RAY_ADDRESS; without either, a cluster of this machine's own."""
    return _one(str)(words) if words else os.environ.get("RAY_ADDRESS") or "local"


_ADDRESS = PrimitiveConstructorSpec(
    "*", "[ADDRESS]", _read_address, is_instance=lambda _: True, str_from_instance=_show
)


def _read_names_and_values(words: list[str]) -> object:
    """NAME VALUE ... NAME VALUE ...: a word that could name an argument begins a hyperparameter."""
    values: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.isidentifier() and word not in ("nan", "inf", "infinity"):
            name = word
            values.setdefault(name, [])
        elif name:
            values[name].append(word)
        else:
            return " ".join(words)
    return values


def _show_names_and_values(values: Any) -> list[str]:
    return [word for name in values or () for word in (name, *_show(values[name]))] or ["none"]


_NAMES_AND_VALUES = PrimitiveConstructorSpec(
    "*", "NAME FLOAT ...", _read_names_and_values, lambda _: True, _show_names_and_values
)


@dataclasses.dataclass(frozen=True)
class _Options(RunOptions, SweepConfig):
    """The words of a command line as tyro reads them, before `SweepConfig` and `RunOptions` check them.

    Args:
      recipe: Named sweep, parts of which the other options change.
      list_recipes: Print the recipes.
    """

    image_size: Annotated[int | None, _INT_OR_NONE] = None
    hyperparameters: Annotated[Any, _NAMES_AND_VALUES, tyro.conf.arg(name="hyperparameter")] = None
    model: Annotated[str | None, _CODE] = None
    optimizer: Annotated[str, _CODE] = SweepConfig.optimizer
    ray: Annotated[str | None, _ADDRESS] = None
    recipe: str = "quick"
    list_recipes: bool = False

    def __post_init__(self) -> None:
        pass


FLAGS = {name: "--" + name.replace("_", "-") for name in _Options.__dataclass_fields__}
FLAGS["hyperparameters"] = "--hyperparameter"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: the words after the command's name; None: those of this process.

    Returns:
      The exit code: 0; 1 if every trial diverged or files could not be written; 2 after bad input; 128 plus the number
      of the signal, 130, 143 or 129, after Ctrl-C, SIGTERM or SIGHUP. Unless it is 0, a line on stderr says why.
    """
    logging.getLogger().addHandler(SILENCE)
    try:
        argv = sys.argv[1:] if argv is None else argv
        if argv[:1] == ["report"]:
            return _report(argv[1:])
        command = parse(argv)
        if command is None:
            print("\n".join(f"{name:8} {_differences(recipe)}" for name, recipe in RECIPES.items()))
            return 0
        from l2jax.run.session import run

        return run(command.sweep, command.run)
    except InputError as error:
        option = FLAGS.get(error.option, error.option)
        print(f"error: {option}{str(error).removeprefix(error.option)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: saved up to the last checkpoint", file=sys.stderr)
        return 130


def _report(argv: Sequence[str]) -> int:
    """Writes the report of one run folder again, or one that compares several."""
    usage = "%(prog)s RUN_DIR ... [--output FILE]"
    parser = argparse.ArgumentParser("l2jax report", usage, _report.__doc__, exit_on_error=False)
    parser.add_argument("run_dirs", nargs="*", type=Path, metavar="RUN_DIR", help="a folder that the command wrote")
    output = "file to write (default: report.html in the folder; for several, in the current one)"
    parser.add_argument("--output", type=Path, metavar="FILE", help=output)
    try:
        options, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise InvalidInputError("report", " ".join(argv), str(error)) from None
    if unknown or not options.run_dirs:
        raise InvalidInputError("report", " ".join(unknown), "RUN_DIR ... [--output FILE]")
    from l2jax.report.page import write_report
    from l2jax.results.results import load_results

    runs = {str(run_dir): load_results(run_dir) for run_dir in options.run_dirs}
    path = options.output or (options.run_dirs[0] if len(runs) == 1 else Path()) / "report.html"
    try:
        write_report(runs, path)
    except OSError as error:
        raise InvalidInputError("output", path, f"a file that can be written ({error.strerror})") from None
    print(path)
    return 0


def parse(argv: Sequence[str]) -> Command | None:
    """Reads the words of a command line.

    Returns:
      The command; None for --list-recipes.

    Raises:
      InputError: for words that cannot be used.
      SystemExit: after --help.
    """
    if null := [word for word in argv if "\0" in word]:  # no system passes such a word, but another program may
        raise InvalidInputError("command line", null[0], "words without null characters")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", nargs="?", const="")
    first.add_argument("--resume", nargs="?", const="")
    known = first.parse_known_args(argv)[0]
    recipe = known.recipe if known.recipe is not None else "quick"
    if recipe not in RECIPES:
        raise InvalidInputError("recipe", recipe, ", ".join(RECIPES))
    if known.resume is not None and known.recipe is not None:
        raise InvalidInputError("recipe", recipe, "none with --resume: the options are those of the run")
    before = RECIPES[recipe] if known.resume is None else read_config(known.resume)
    # The default sweep begins with the defaults as they are written: its train_size is that of the data set.
    options_before = {} if known.resume is None and before == SweepConfig() else dict(vars(before))
    for option in CODE_OPTIONS:  # a run folder never makes the command run code: a person names the file again
        if ":" in (options_before.get(option) or ""):
            del options_before[option]
    registry = ConstructorRegistry()
    registry.primitive_rule(_option_type)
    options, unknown = tyro.cli(
        functools.partial(_Options, **options_before),
        prog="l2jax",
        description="Trains a CNN at every L2 strength at once: does L2 regularisation help?",
        args=_join(FLAGS["hyperparameters"], argv),
        config=(tyro.conf.FlagCreatePairsOff,),
        registry=registry,
        return_unknown_args=True,
    )
    if unknown:
        near = difflib.get_close_matches(unknown[0].partition("=")[0], FLAGS.values(), n=1)
        raise InvalidInputError("command line", unknown[0], " or ".join([*near, "what --help lists"]))
    words = [word.partition("=")[0].removeprefix("--").replace("-", "_") for word in argv if word.startswith("--")]
    for option in HYPERPARAMETERS:  # of any other option, the last value counts, as everywhere
        if words.count(option) > 1:
            raise InvalidInputError(option, "it twice", "once, with all of its values behind it")
    if options.recipe not in RECIPES:  # of several words, the first may be one
        raise InvalidInputError("recipe", options.recipe, ", ".join(RECIPES))
    if options.list_recipes:
        return None
    command = Command(_part(SweepConfig, options), _part(RunOptions, options))
    if command.run.resume:
        command.sweep.check_extends(before)
    return command


def _join(flag: str, argv: Sequence[str]) -> list[str]:
    """Words with all occurrences of a flag made one, as the parser would keep the last alone."""
    rest: list[str] = []
    values: list[str] = []
    target = rest
    for word in argv:
        if word == flag or word.startswith(f"{flag}="):
            target = values
            target += [word.removeprefix(f"{flag}=")] if word != flag else []
        else:
            target = rest if word.startswith("--") else target
            target.append(word)
    return [*rest, flag, *values] if values else [*argv]


def _part(cls: type[T], options: _Options) -> T:
    """The options that are fields of one of the two dataclasses, now checked."""
    return cls(**{field.name: getattr(options, field.name) for field in dataclasses.fields(cls)})


def _option_type(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Tells tyro how to read an option: it accepts any words, and leaves the checks to the dataclasses."""
    types: dict[Any, tuple[str, Callable[[list[str]], object]]] = {
        get_origin(SweptValues): ("FLOAT ...", tuple),
        int: ("INT", _one(int)),
        int | None: ("INT|all", _one(lambda word: None if word == "all" else int(word))),
        int | float | Literal["auto"] | None: (
            "NUMBER|all|auto",
            _one(lambda word: None if word == "all" else _number(word)),
        ),
        float: ("FLOAT", _one(float)),
        int | float | str | None: ("NUMBER|test", _one(lambda word: word if word == "test" else _number(word))),
        str: ("NAME", _one(str)),
        str | None: ("PATH", _one(str)),
        Path | None: ("PATH", _one(Path)),
    }
    kind = get_origin(info.type) if get_origin(info.type) is tuple else info.type  # tyro may write it as typing.Tuple
    if kind not in types:
        return None
    metavar, read = types[kind]
    show = functools.partial(_show, none="all" if "all" in metavar else "none")
    return PrimitiveConstructorSpec("*", metavar, read, is_instance=lambda _: True, str_from_instance=show)


def _differences(recipe: SweepConfig) -> str:
    """The options in which a recipe differs from the default sweep."""
    words = []
    for name, value in vars(recipe).items():
        if value != getattr(RECIPES["quick"], name):
            values = value if isinstance(value, tuple) else ["all" if value is None else value]
            words += [FLAGS[name], *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]
    return " ".join(words) or "the default"
