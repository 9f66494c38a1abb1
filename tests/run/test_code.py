"""Networks and optimizers that the command line names by file."""

from __future__ import annotations

import json

import numpy as np
import optax
import pytest
from flax import nnx

import l2jax
from l2jax import cli
from l2jax.config import SweepConfig
from l2jax.errors import InputError
from l2jax.run.code import load_code

pytestmark = pytest.mark.usefixtures("compiled_quickly")

FILE = """
import optax
from flax import nnx
from beside import WIDTH

class Net(nnx.Module):
    def __init__(self, dropout, *, rngs):
        self.hidden, self.logits = nnx.Linear(784, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 10, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, images):
        return self.logits(self.dropout(nnx.relu(self.hidden(images.reshape(len(images), -1)))))

def sgd(rate, momentum):
    return optax.sgd(rate, momentum)
"""
TINY = [
    "--l2",
    "0",
    "1e-2",
    "--seeds=1",
    "--epochs=2",
    "--train-size=64",
    "--val-size=40",
    "--learning-rate=0.05",
    "--quiet",
]
OWN = [
    "--model",
    "net.py:Net",
    "--optimizer",
    "net.py:sgd",
    "--hyperparameter",
    "dropout",
    "0",
    "0.5",
    "momentum",
    "0.9",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FILE)
    (tmp_path / "beside.py").write_text("WIDTH = 8")
    return tmp_path


def test_the_command_trains_a_network_of_a_file(folder):
    assert cli.main([*TINY, *OWN, "--run-dir", "run"]) == 0
    results = l2jax.load_results("run")
    assert results.config["model"] == "Net"
    assert results.data.sizes["dropout"] == 2 and results.data["momentum"] == 0.9
    assert (folder / "run" / "heat_map_dropout.png").exists()

    class Net(nnx.Module):
        def __init__(self, dropout, *, rngs):
            self.hidden, self.logits = nnx.Linear(784, 8, rngs=rngs), nnx.Linear(8, 10, rngs=rngs)
            self.dropout = nnx.Dropout(dropout, rngs=rngs)

        def __call__(self, images):
            return self.logits(self.dropout(nnx.relu(self.hidden(images.reshape(len(images), -1)))))

    same = l2jax.sweep(
        [0, 1e-2],
        1,
        model=Net,
        optimizer=lambda rate, momentum: optax.sgd(rate, momentum),
        hyperparameters={"dropout": [0, 0.5], "momentum": 0.9},
        epochs=2,
        train_size=64,
        val_size=40,
        learning_rate=0.05,
    )
    np.testing.assert_array_equal(results.data["val_loss"], same.data["val_loss"])


def test_a_run_is_resumed_with_the_same_file_named_again(folder, capsys):
    assert cli.main([*TINY, *OWN, "--run-dir", "run"]) == 0
    resume = ["--resume", "run", "--epochs", "3", "--quiet"]
    for words, message in {
        (): "--model: got none; accepted: net.py:Net, named again, as in the run to resume",
        ("--model", "net.py:Other"): "--model: got net.py:Other; accepted: net.py:Net, named again",
        tuple(OWN[:2]): "--optimizer: got adam; accepted: net.py:sgd, named again, as in the run to resume",
        (*OWN[:4], "--hyperparameter", "dropout", "0"): "--hyperparameter: got dropout; accepted: dropout momentum",
        (*OWN[:4], "--hyperparameter", "dropout", "0", "momentum", "0.9"): "dropout: got 0; accepted: 0 0.5 of the run",
    }.items():
        assert cli.main([*resume, *words]) == 2
        assert message in capsys.readouterr().err
    (folder / "moved.py").write_text(FILE)
    assert cli.main([*resume, "--model", "moved.py:Net", "--optimizer", "net.py:sgd"]) == 0
    (folder / "net.py").write_text(FILE.replace("relu", "tanh"))
    assert cli.main([*resume, *OWN[:4]]) == 2
    assert "the file with which the run to resume was trained, unchanged" in capsys.readouterr().err


def test_a_run_folder_executes_nothing(folder, capsys):
    """A config that names a file, as a stranger could have written it."""
    (folder / "trap.py").write_text("open('sprung', 'w')")
    assert cli.main([*TINY, "--run-dir", "run"]) == 0
    config = json.loads((folder / "run" / "config.json").read_text())
    config["sweep"] |= {"model": "trap.py:Net", "optimizer": "trap.py:sgd"}
    (folder / "run" / "config.json").write_text(json.dumps(config))
    (folder / "run" / "SHA256SUMS").unlink()
    assert cli.main(["--resume", "run", "--quiet"]) == 2
    l2jax.load_results("run")
    assert not (folder / "sprung").exists()
    assert "--model: got none; accepted: trap.py:Net, named again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "source", "message"),
    [
        ("", "absent.py:Net", r"FILE.py:NAME of a file that can be read \(No such file or directory\)"),
        (
            "a = 1\nb = 1 / 0",
            "f.py:Net",
            r"a file that Python can run \(ZeroDivisionError in line 2: division by zero\)",
        ),
        ("a =\n", "f.py:Net", r"a file that Python can run \(SyntaxError in line 1: invalid syntax"),
        ("import nowhere", "f.py:Net", r"a file that Python can run \(ModuleNotFoundError in line 1: No module named"),
        ("def make(): pass", "f.py:Net", "one of make in f.py"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error(content, source, message, folder):
    (folder / "f.py").write_text(content)
    with pytest.raises(InputError, match=f"^model: got {source}; accepted: {message}"):
        load_code(SweepConfig(model=source))


@pytest.mark.parametrize("words", ["--model net.Net", "--model net.py", "--model net.py:", "--optimizer adagrad"])
def test_a_name_that_is_no_file_is_an_error(words, capsys):
    assert cli.main(words.split()) == 2
    assert "FILE.py:NAME" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["0.5", "dropout", "dropout many", "l2 1"])
def test_hyperparameters_without_name_or_value_are_errors(words, capsys):
    assert cli.main(["--hyperparameter", *words.split()]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lion", "rmsprop"])
def test_optimizers_of_optax_have_names(name):
    code = load_code(SweepConfig(optimizer=name))
    assert code.functions["optimizer"] is getattr(optax, name) and not code.sha256
