"""The command that reproduces a run, and the run's settings in words."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import shlex
from collections.abc import Mapping
from typing import Any

from l2jax.config import SweepConfig, hyperparameter
from l2jax.errors import InputError
from l2jax.hyperparameters import MOST_LISTED, parse_values
from l2jax.results.files import BUILT_IN

DEFAULT_ALL = ("train_size", "devices", "trials_at_once")
"""Options that take all there are if they are not given."""
NOT_LISTED = ("sweep", "versions", "seconds", "warnings", "working_folder")
"""What a config holds beside facts about the run; or it is shown elsewhere."""


def how_to_reproduce(config: Mapping[str, Any]) -> list[str]:
    """Lines of HTML: the command, and lists of options, versions and facts about the run.

    Args:
      config: of `Results`.
    """
    sweep, model, note = config.get("sweep", {}), config.get("model"), ""
    run = {name: value for name, value in config.items() if name not in NOT_LISTED}
    run |= {f"seconds {phase}": f"{value:.1f}" for phase, value in config.get("seconds", {}).items()}
    if model in BUILT_IN:
        run |= {"model": "built in"}
    else:
        text = f"The command trains the network that comes with l2jax; this run had its own, {model}."
        note = f'<p class="note">{html.escape(text)}</p>'
    if "..." in command(sweep):
        note += '<p class="note">It has more values than fit here: config.json holds them all.</p>'
    groups = {"Options": sweep, "Versions": config.get("versions", {}), "Run": run}
    lists = [f"<div><h4>{heading}</h4>{_list(entries)}</div>" for heading, entries in groups.items()]
    return [f"<pre>{html.escape(command(sweep))}</pre>{note}", '<div class="settings">', *lists, "</div>"]


def command(sweep: Mapping[str, Any]) -> str:
    """The command that runs a sweep again, quoted for a shell.

    Options cannot express a person's own network, optimizer or arrays.

    Args:
      sweep: the options, as a config holds them.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(SweepConfig)}
    arguments = ["python", "run_sweep.py"]
    for name, value in sweep.items():
        if value is False or (value is None and defaults.get(name) is None):
            continue
        if isinstance(value, dict):  # own hyperparameters
            for own, values in value.items():
                arguments += ["--hyperparameter", own, *_few(own, values)]
            continue
        arguments.append("--" + name.replace("_", "-"))
        arguments += [] if value is True else _few(name, value) or ["all"]
    return shlex.join(arguments)


def _few(name: str, value: object) -> list[str]:
    """A value as words of a command; of many numbers the grid that they are, or else some of them and "..."."""
    if not isinstance(value, list) or len(value) <= MOST_LISTED:
        return _texts(value)
    first = int(value[0] == 0)
    grid = f"log:{value[first]!r}:{value[-1]!r}:{len(value) - first}"
    with contextlib.suppress(InputError):
        if list(parse_values(name, hyperparameter(name), grid)) == value[first:]:
            return [*_texts(value[:first]), grid]
    return [*_texts(value[:3]), "...", *_texts(value[-1])]


def _list(entries: Mapping[str, Any]) -> str:
    texts = {
        _name(name): ", ".join(_few(name, value)) or ("all" if name in DEFAULT_ALL else "none")
        for name, value in entries.items()
    }
    items = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in texts.items())
    return f"<dl>{''.join(items)}</dl>"


def _name(key: str) -> str:
    return key.replace("_", " ")


def _texts(value: object) -> list[str]:
    """A JSON value as words: a number or text, or those of a list or dict; none for null."""
    if isinstance(value, dict):
        return [f"{_name(name)} {text}" for name, item in value.items() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, bool) or value is None:
        return [] if value is None else ["yes" if value else "no"]
    return [str(value).removesuffix(".0") if isinstance(value, float) else str(value)]
