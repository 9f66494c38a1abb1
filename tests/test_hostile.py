"""Damaged folders, wrong command lines: an error in one line or the right result, no traceback and nothing wrong."""

import dataclasses
import io
import json
import os
import pickle
import random
import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st

import l2jax
from l2jax import cli
from l2jax.atomic import seal
from l2jax.config import HYPERPARAMETERS, SweepConfig
from l2jax.errors import InputError
from l2jax.results.files import read_config
from l2jax.run.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    assert tiny_run.run(run_dir) == 0
    return run_dir


# Bytes


def damage(path: Path, chosen: random.Random) -> None:
    """Changes a file: a bit, a byte, a stretch of it, or its length."""
    content = bytearray(path.read_bytes())
    place, size = chosen.randrange(len(content) or 1), chosen.choice([1, 7, 100])
    before = bytes(content)
    match chosen.choice(["bit", "byte", "zeros", "noise", "cut", "empty", "longer", "shifted"]):
        case "bit" if content:
            content[place] ^= 1 << chosen.randrange(8)
        case "byte" if content:
            content[place] = chosen.randrange(256)
        case "zeros":
            content[place : place + size] = bytes(len(content[place : place + size]))
        case "noise":
            content[place : place + size] = chosen.randbytes(len(content[place : place + size]))
        case "cut":
            del content[place:]
        case "empty":
            content.clear()
        case "longer":
            content += chosen.randbytes(size)
        case "shifted":
            del content[place : place + size]
    if bytes(content) == before:
        content += b"0"
    path.write_bytes(content)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("times", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_results_are_an_error_or_the_right_ones(times, run_dir, tmp_path):
    expected, chosen, errors = l2jax.load_results(run_dir), random.Random(0), 0
    for name in ("config.json", "results.nc", "SHA256SUMS"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    for _ in range(times):
        path = chosen.choice(files_of(tmp_path))
        content = path.read_bytes()
        damage(path, chosen)
        try:
            assert l2jax.load_results(tmp_path) == expected
        except InputError as error:
            assert "damaged" in str(error)
            errors += 1
        path.write_bytes(content)
    assert errors == times


def test_damaged_results_without_checksums_do_not_break_anything_else(run_dir, tmp_path):
    """As of an older version: wrong values cannot be told, but damage ends in an error of one line or in results."""
    chosen = random.Random(1)
    for name in ("config.json", "results.nc"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    for _ in range(60):
        path = chosen.choice(files_of(tmp_path))
        content = path.read_bytes()
        damage(path, chosen)
        try:
            l2jax.load_results(tmp_path)
        except InputError as error:
            assert "\n" not in str(error)
        path.write_bytes(content)


@pytest.mark.parametrize("times", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_checkpoints_are_left_out_and_what_they_held_is_trained_again(times, run_dir, tmp_path):
    expected, chosen, warned = l2jax.load_results(run_dir).data, random.Random(2), []
    for number in range(times):
        folder = tmp_path / str(number)
        shutil.copytree(run_dir / "checkpoints", folder / "checkpoints")
        for _ in range(chosen.choice([1, 1, 2, 5])):
            damage(chosen.choice(files_of(folder / "checkpoints")), chosen)
        sweep, before = tiny_run.sweep(), len(warned)
        for progress, _ in Checkpoints(folder).load(sweep.check, warned.append):
            sweep.restore(progress)
        assert len(warned) > before
        for _ in sweep.epochs():
            pass
        assert sweep.results().data.identical(expected)
        shutil.rmtree(folder)
    assert not any("\n" in line for line in warned)


@pytest.mark.parametrize("times", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_parameters_are_an_error_or_the_right_ones(times, run_dir, tmp_path):
    content, chosen = (run_dir / "best_params.npz").read_bytes(), random.Random(3)
    expected = dict(np.load(io.BytesIO(content)))
    for _ in range(times):
        path = tmp_path / "params.npz"
        path.write_bytes(content)
        damage(path, chosen)
        try:
            with path.open("rb") as file:
                params = dict(np.load(file, allow_pickle=False))
        except Exception:  # NumPy's and zipfile's own
            continue
        for name in params.keys() & expected.keys():
            np.testing.assert_array_equal(params[name], expected[name])


@pytest.fixture
def never_runs(tmp_path, monkeypatch):
    """A folder to start commands in; a run that would begin is an error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    ran = []
    monkeypatch.setattr("l2jax.run.session.run", lambda *words, **_: ran.append(words) or 0)
    return ran


# Folders made to do harm


class Harm:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_loading_executes_nothing(run_dir, tmp_path, monkeypatch):
    """Every file of a folder is a pickle that would leave a file, with checksums as they should be."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_dir, tmp_path / "run")
    for path in files_of(tmp_path / "run"):
        path.write_bytes(pickle.dumps(Harm()))
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        (folder / "SHA256SUMS").unlink()
        seal(folder)
    (tmp_path / "run" / "SHA256SUMS").unlink()
    sweep, warned = tiny_run.sweep(), []
    assert not list(Checkpoints(tmp_path / "run").load(sweep.check, warned.append))
    assert len(warned) == 4
    for read in (l2jax.load_results, read_config):
        with pytest.raises(InputError):
            read(tmp_path / "run")
    np.savez(tmp_path / "params.npz", kernel=np.array([Harm()]))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        dict(np.load(tmp_path / "params.npz"))
    assert not (tmp_path / "harmed").exists()
    pickle.loads(pickle.dumps(Harm()))  # it does what it says
    assert (tmp_path / "harmed").exists()


def test_arrays_larger_than_a_sweep_can_have_are_refused_before_memory_is_taken(run_dir, tmp_path):
    """The shapes that a checkpoint claims are a million times larger, with checksums as they should be."""
    shutil.copytree(run_dir, tmp_path / "run")
    (newest,) = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1:]
    progress, description = next(Checkpoints(run_dir).load(lambda _: None, pytest.fail))
    huge = progress._replace(state={name: np.zeros((10**7,), np.uint8) for name in progress.state})
    Checkpoints(tmp_path / "run").save(huge, description)
    warned: list[str] = []
    checks = []

    def check(shapes):
        checks.append(shapes)
        assert all(not isinstance(leaf, np.ndarray) for leaf in shapes.state.values())
        tiny_run.sweep().check(shapes)

    found = next(Checkpoints(tmp_path / "run").load(check, warned.append))
    assert [line.rpartition(": ")[2] for line in warned] == ["the state of another network or optimizer"]
    assert len(checks) == 2 and found.progress.metrics.keys() == progress.metrics.keys()
    assert newest.exists()


def test_results_that_claim_to_be_huge_take_no_memory(run_dir, tmp_path):
    """Each number of the file's head in turn, among them all sizes, becomes the largest there is."""
    (tmp_path / "config.json").write_bytes((run_dir / "config.json").read_bytes())
    content = (run_dir / "results.nc").read_bytes()
    errors = 0
    tracemalloc.start()
    try:
        for place in range(4, 400, 8):
            (tmp_path / "results.nc").write_bytes(content[:place] + b"\x7f\xff\xff\xff" + content[place + 4 :])
            try:
                l2jax.load_results(tmp_path)
            except InputError:
                errors += 1
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()
    assert errors > 20


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"sweep": 3}',
        b'{"sweep": {"l2": "x"}}',
        b'{"sweep": {"l2": [0], "unheard": 1}}',
        b'{"sweep": {"epochs": 1e400}}',
        b'{"sweep": {"epochs": NaN}}',
        b'{"sweep": {"l2": {"x": 1}}}',
        b'{"sweep": {"dataset": 5}}',
        b'{"sweep": {"l2": "log:1e-9:1:10000", "seeds": 1000}}',
        b"[" * 100_000,
        b'{"sweep": ' * 100_000,
        b"\xff\xfe\x00",
        b'{"sweep": {"__class__": "os.system"}}',
    ],
)
def test_other_config_files_are_refused_in_one_line(content, never_runs, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes(content)
    assert cli.main(["--resume", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"error: --resume: got .*; accepted: a run folder with the config.json of a sweep \(.*\)", line)


# Command lines


NUMBERS = [
    "0",
    "-1",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "x",
    "",
    "0x10",
    "1,5",
    "½",
    "1_0_",
    "--",
    "None",
    "[]",
    "9" * 5000,
]
BAD = {
    "--l2": [
        "-1",
        "nan",
        "inf",
        "1e13",
        "x",
        "",
        "0 0",
        "log:",
        "log:1:2",
        "log:2:1:3",
        "log:1:2:1",
        "log:0:1:3",
        "log:1:2:x",
    ],
    "--learning-rate": ["0", "-1", "nan", "inf", "1e31", "x", "1 1", "log:1:1:2", "log:a:b:c"],
    "--weight-decay": ["-1", "nan", "inf", "1e13", "x", "0 0.0"],
    "--label-smoothing": ["-0.1", "1", "nan", "x", "0.1 1e-1"],
    "--label-noise": ["-0.1", "1.1", "nan", "x", "inf", ""],
    "--checkpoint-minutes": ["-1", "nan", "inf", "x", "", "1 2"],
    "--refine": ["-1", "21", "x", "1.5", "", "1 2"],
    "--seeds": [number for number in NUMBERS if number != "--"],
    "--epochs": NUMBERS,
    "--batch-size": NUMBERS,
    "--folds": [number for number in NUMBERS if number != "--"],
    "--train-size": NUMBERS,
    "--val-size": [*NUMBERS, "tests", "all"],
    "--devices": NUMBERS,
    "--trials-at-once": NUMBERS,
    "--recipe": ["", "cake", "quick cake"],
    "--resume": ["", ".", "nowhere", "file", "/dev/null", "a b", "\0", "x" * 5000],
    "--run-dir": ["", "a b", "file", "full", "/dev/null", "\0", "x" * 5000],
    "--profile": ["", "a b", "file", "full", "\0"],
    "--bfloat16": ["yes", "False"],
    "--autotune": ["1"],
    "--quiet": ["no"],
    "--unheard": ["", "1"],
    "": [
        "stray",
        "-x",
        "-5",
        "---",
        "--l",
        "--epoch=3",
        "--no-quiet",
        "é",
        "\0",
        "report nowhere",
        "$(touch harmed)",
    ],
}
LINES = [
    [*([option] if option else []), *words.split(" ")] if words else [option]
    for option, all_words in BAD.items()
    for words in all_words
]
LINES += [[f"{option}={all_words[0]}"] for option, all_words in BAD.items() if option]


def ended(words):
    try:
        return cli.main(words)
    except SystemExit as exit:  # of --help
        return exit.code or 0


def test_wrong_command_lines_end_with_one_line(never_runs, tmp_path, capsys):
    assert len({tuple(words) for words in LINES}) >= 200
    wrong = {}
    for words in LINES:
        try:
            code = ended(words)
        except Exception as error:
            code = repr(error)
        out, err = capsys.readouterr()
        one_line = not out and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 600
        if code != 2 or not one_line or never_runs:
            wrong[tuple(words)] = code, out, err
        never_runs.clear()
    assert wrong == {}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "file", "full"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([*cli.FLAGS.values(), "report", "--help", "--", *NUMBERS]),
            st.text(st.characters(codec="utf-8"), max_size=8),
            st.floats().map(str),
            st.integers().map(str),
        ),
        max_size=6,
    )
)
def test_no_command_line_ends_with_a_traceback(words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("l2jax.run.session.run", lambda *_, **__: 0)
        assert ended(words) in (0, 1, 2)


numbers = {
    "l2": st.floats(0, 1e12),
    "learning_rate": st.floats(1e-30, 1e30),
    "weight_decay": st.floats(0, 1e12),
    "label_smoothing": st.floats(0, 1, exclude_max=True),
}


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            name: st.lists(numbers[name].map(abs), min_size=1, max_size=4, unique=True).map(tuple)
            for name in HYPERPARAMETERS
        },
        optional={
            "seeds": st.integers(1, 10),
            "epochs": st.integers(1, 10**6),
            "batch_size": st.integers(1, 400),
            "train_size": st.one_of(st.none(), st.integers(400, 10**9)),
            "val_size": st.one_of(st.just("test"), st.integers(1, 10**9)),
            "folds": st.integers(1, 10),
            "label_noise": st.floats(0, 1),
            "dataset": st.text(),
            "data_dir": st.text(min_size=1),
            "bfloat16": st.booleans(),
            "devices": st.one_of(st.none(), st.integers(1, 99)),
            "trials_at_once": st.one_of(st.none(), st.integers(1, 99)),
            "autotune": st.booleans(),
        },
    )
)
def test_any_config_comes_back_from_its_file(tmp_path_factory, options):
    config = SweepConfig(**options)
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.json").write_text(json.dumps({"sweep": dataclasses.asdict(config)}))
    assert read_config(folder) == config
    config.check_extends(read_config(folder))
