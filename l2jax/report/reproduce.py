"""How to repeat a run: its command, and its settings in words."""

from __future__ import annotations

import dataclasses
import html
import shlex
from collections.abc import Mapping
from typing import Any

from l2jax.config import SweepConfig

ALL = ("train_size", "devices", "trials_at_once")
"""Options that take all there are, if they are not given."""


def how_to_repeat(config: Mapping[str, Any]) -> list[str]:
    """Lines of HTML, from the config of `Results`."""
    sweep, seconds = config.get("sweep", {}), config.get("seconds", {})
    groups = {
        "Options": sweep,
        "Versions": config.get("versions", {}),
        "Run": {name: value for name, value in config.items() if name not in ("sweep", "versions", "seconds")}
        | {f"seconds {what}": f"{value:.1f}" for what, value in seconds.items()},
    }
    lists = []
    for heading, entries in groups.items():
        told = {
            str(name).replace("_", " "): ", ".join(_words(value)) or ("all" if name in ALL else "none")
            for name, value in entries.items()
        }
        items = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in told.items())
        lists.append(f"<div><h4>{heading}</h4><dl>{''.join(items)}</dl></div>")
    note = ""
    if config.get("model", "cnn") != "cnn":
        model = html.escape(str(config["model"]))
        note = (
            f'<p class="note">The command trains the network that comes with l2jax; this run had its own, {model}.</p>'
        )
    return [f"<pre>{html.escape(command(sweep))}</pre>{note}", '<div class="settings">', *lists, "</div>"]


def _words(value: object) -> list[str]:
    """A JSON value as words: a number or text, or those of a list or dict; none for null."""
    if isinstance(value, dict):
        return [f"{name.replace('_', ' ')} {word}" for name, item in value.items() for word in _words(item)]
    if isinstance(value, list):
        return [word for item in value for word in _words(item)]
    if isinstance(value, bool) or value is None:
        return [] if value is None else ["yes" if value else "no"]
    return [str(value).removesuffix(".0") if isinstance(value, float) else str(value)]


def command(sweep: Mapping[str, Any]) -> str:
    """The command that runs a sweep again, from the options that its config holds; quoted for a shell.

    What was a network, optimizer or arrays of one's own, no command can name.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(SweepConfig)}
    words = ["python", "run_sweep.py"]
    for name, value in sweep.items():
        if value is False or (value is None and defaults.get(name) is None):
            continue
        words.append("--" + name.replace("_", "-"))
        words += [] if value is True else _words(value) or ["all"]
    return shlex.join(words)
