"""The command that reproduces a run, and its settings in words."""

import dataclasses
import json
import shlex

import pytest

from l2jax import cli
from l2jax.config import SweepConfig
from l2jax.report.reproduce import command, how_to_reproduce


@pytest.mark.parametrize(
    "config",
    [
        SweepConfig(),
        SweepConfig(train_size=0.8, val_size=0.2),
        SweepConfig(
            l2=(0, 1e-5, 0.123456789), seeds=7, train_size=None, bfloat16=True, trials_at_once=2, dataset="a b'c"
        ),
    ],
)
def test_the_command_reproduces_the_run(config):
    python, script, *words = shlex.split(command(json.loads(json.dumps(dataclasses.asdict(config)))))
    assert (python, script) == ("python", "run_sweep.py")
    assert cli.parse(words).sweep == config


@pytest.mark.parametrize("config", [{"model": None}, {"model": "cnn"}, {}])
def test_the_built_in_network_needs_no_note(config):
    lines = "".join(how_to_reproduce(config))
    assert "had its own" not in lines and "<dt>model</dt><dd>built in</dd>" in lines


def test_a_network_of_ones_own_is_mentioned():
    lines = "".join(how_to_reproduce({"model": "Net"}))
    assert "The command trains the network that comes with l2jax; this run had its own, Net." in lines


def test_settings_are_written_in_words():
    config = {
        "sweep": {"l2": [0.0, 0.01], "train_size": None, "data_dir": None, "bfloat16": True},
        "tuning": {"few_products": 16},
        "seconds": {"training": 60.44},
    }
    lines = "".join(how_to_reproduce(config))
    for name, text in {
        "l2": "0, 0.01",
        "train size": "all",
        "data dir": "none",
        "bfloat16": "yes",
        "tuning": "few products 16",
        "seconds training": "60.4",
    }.items():
        assert f"<dt>{name}</dt><dd>{text}</dd>" in lines
