import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2jax.config import HYPERPARAMETERS, MAX_TRIALS, OPTIMIZERS, SweepConfig
from l2jax.errors import InputError, InvalidInputError
from l2jax.hyperparameters import parse_values
from l2jax.results.files import read_config


def test_numbers_and_grids_mix_and_keep_their_order():
    assert parse_values("l2", HYPERPARAMETERS["l2"], ["1e-3", "0", "log:1:100:3"]) == (0.001, 0.0, 1.0, 10.0, 100.0)


def test_one_string_may_hold_several_strengths():
    assert parse_values("l2", HYPERPARAMETERS["l2"], "0 log:1e-2:1e-1:2") == (0.0, 0.01, 0.1)


@pytest.mark.parametrize(("low", "high", "count"), [(1e-5, 1e-1, 9), (3e-7, 2.0, 4), (1e-37, 1e12, 5), (1, 2, 2)])
def test_grid_is_geometric_with_both_ends(low, high, count):
    grid = parse_values("l2", HYPERPARAMETERS["l2"], [f"log:{low}:{high}:{count}"])
    np.testing.assert_allclose(grid, np.geomspace(low, high, count), rtol=1e-11)
    assert (grid[0], grid[-1]) == (low, high)


def test_powers_of_ten_in_a_grid_are_exact():
    assert parse_values("l2", HYPERPARAMETERS["l2"], ["log:1e-5:1e-1:5"]) == (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ([], "nothing"),
        ("", "nothing"),
        (["many"], "many"),
        ([""], "nothing"),
        (["0", "-1e-3"], "-1e-3"),
        (["nan"], "nan"),
        (["inf"], "inf"),
        (["1e400"], "1e400"),
        ([10**400], "1000"),
        (["1e-3", "0.001"], "0.001"),
        ([0, -0.0], "-0.0"),
        (["0.1", "log:0.1:1:3"], "log:0.1:1:3"),
        (["log:0:1:3"], "log:0:1:3"),
        (["log:1:0.1:3"], "log:1:0.1:3"),
        (["log:1:1:3"], "log:1:1:3"),
        (["log:1:inf:3"], "log:1:inf:3"),
        (["log:1:2:1"], "log:1:2:1"),
        (["log:1:2:2.5"], "log:1:2:2.5"),
        (["log:1:2"], "log:1:2"),
        (["log:1:2:3:4"], "log:1:2:3:4"),
        ([f"log:1:2:{MAX_TRIALS + 1}"], "log:1:2:"),
        ([None], "None"),
        ([[0.1, 0.2]], "[0.1, 0.2]"),
        (None, "None"),
        (2e12, "2000000000000.0"),
    ],
)
def test_bad_strengths(words, given):
    with pytest.raises(InputError) as caught:
        SweepConfig(l2=words)
    assert str(caught.value).startswith(f"l2: got {given}")
    assert "; accepted: numbers from 0 to 1e12, each once, or log:LOW:HIGH:COUNT" in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        {"seeds": 0},
        {"seeds": -1},
        {"seeds": 1.5},
        {"seeds": "3"},
        {"seeds": None},
        {"seeds": MAX_TRIALS},  # times the strengths: too many trials
        {"epochs": 0},
        {"epochs": 10**9},
        {"batch_size": 0},
        {"batch_size": 401},  # the training part is 400
        {"learning_rate": 0},
        {"learning_rate": -1e-3},
        {"learning_rate": float("inf")},
        {"learning_rate": float("nan")},
        {"learning_rate": "fast"},
        {"weight_decay": -0.1},
        {"label_smoothing": 1.0},
        {"train_size": 0},
        {"train_size": "none"},
        {"val_size": 0},
        {"val_size": -500},
        {"val_size": None},
        {"val_size": "all"},
        {"folds": 0},
        {"folds": "5"},
        {"label_noise": -0.1},
        {"label_noise": 1.1},
        {"label_noise": "much"},
        {"data_dir": 3},
        {"dataset": None},
        {"image_size": 0},
        {"image_size": "32"},
    ],
)
def test_bad_option(option):
    ((name, value),) = option.items()
    with pytest.raises(InvalidInputError) as caught:
        SweepConfig(**option)
    assert str(caught.value).startswith(f"{name}: got {value}; accepted: ")
    assert (caught.value.option, caught.value.given) == (name, value)


@pytest.mark.parametrize("given", ["a\nb", "\r", "x" * 1000, "\x1b[31mred", ""])
def test_a_refusal_is_one_short_printable_line(given):
    line = str(InvalidInputError("dataset", given, "mnist_small"))
    assert line.isprintable()
    assert len(line) < 120


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["1e-3", "1.00000001e-3"],
            "l2: got 0.00100000001; accepted: values that differ in float32, as 0.001 does not",
        ),
        (["log:1:1.0000001:9"], "values that differ in float32, as 1.0 does not"),
        (["1e-46"], "l2: got 1e-46; accepted: 0, or 1.18e-38 and more, as float32 has none between"),
        (["0", "1e-40"], "l2: got 1e-40; accepted: values that differ in float32, as 0.0 does not"),
    ],
)
def test_values_that_are_one_to_the_devices_are_refused(values, message):
    with pytest.raises(InputError) as caught:
        SweepConfig(l2=values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "scalar", [0.25, np.float32(0.25), np.array(0.25), np.float64(0.25), jnp.float32(0.25), jnp.array(0.25), "0.25"]
)
def test_scalars_of_every_library_are_scalars(scalar):
    config = SweepConfig(l2=scalar, learning_rate=scalar, weight_decay=[scalar, np.array(0)])
    assert (config.l2, config.learning_rate, config.weight_decay) == ((0.25,), (0.25,), (0.25, 0.0))
    if not isinstance(scalar, str):
        assert SweepConfig(val_size=scalar, train_size=scalar, label_noise=scalar).train_size == 0.25
    assert SweepConfig(seeds=np.array(3), epochs=jnp.int32(2)).seeds == 3


@pytest.mark.parametrize("size", [1.0, 0.0, -0.2, 1.5, float("nan"), np.float32(1), "0.2"])
def test_fractions_are_between_0_and_1(size):
    for option in "train_size", "val_size":
        with pytest.raises(
            InvalidInputError, match=f"^{option}: got .*; accepted: a whole number >= 1.* or a fraction"
        ):
            SweepConfig(**{option: size})


def test_without_a_train_size_any_batch_size_may_fit():
    assert SweepConfig(train_size=None, batch_size=512).batch_size == 512


def test_only_the_embedded_data_set_has_a_train_size_of_its_own():
    assert SweepConfig().train_size == SweepConfig(train_size="auto").train_size == 400
    assert SweepConfig(dataset="mnist").train_size is None and SweepConfig(dataset="mnist").val_size == 400
    assert SweepConfig(dataset="mnist", train_size=400).train_size == 400
    assert SweepConfig(train_size=None).train_size is None


@pytest.mark.parametrize(
    "path, name",
    [
        ("digits.npz", "./digits.npz"),
        ("photos", "./photos"),
        ("./photos", "./photos"),
        ("../photos", "../photos"),
        ("..photos", "./..photos"),
        ("..", "./.."),
        (".", "./."),
        ("/data/photos", "/data/photos"),
        ("~/photos", "~/photos"),
    ],
)
def test_a_path_is_a_name_that_begins_like_one(path, name):
    config = SweepConfig(dataset=Path(path))
    assert config == SweepConfig(dataset=name)
    assert json.loads(json.dumps(dataclasses.asdict(config)))["dataset"] == name


def test_numbers_of_numpy_become_pythons():
    config = SweepConfig(l2=np.array([0.0, 0.5]), seeds=np.int64(2), learning_rate=np.float64(0.5))
    assert config == SweepConfig(l2=(0.0, 0.5), seeds=2, learning_rate=0.5)
    assert {type(value) for value in (*config.l2, config.seeds, *config.learning_rate)} == {float, int}


def test_config_comes_back_from_json():
    config = SweepConfig(
        l2=parse_values("l2", HYPERPARAMETERS["l2"], "0 log:1e-5:1e-1:8"), seeds=2, train_size=None, learning_rate=3e-4
    )
    again = SweepConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config
    assert hash(again) == hash(config)


def test_config_counts_trials():
    assert SweepConfig(l2=(0.0, 0.1, 1.0), seeds=4).num_trials == 12
    assert SweepConfig(l2=(0.0, 0.1), learning_rate=(0.1, 0.01, 1e-3), seeds=4, folds=5).num_trials == 120


def test_folds_take_the_place_of_a_validation_part():
    assert SweepConfig(folds=5, val_size=300) == SweepConfig(folds=5, val_size="test") == SweepConfig(folds=5)
    assert SweepConfig(folds=5).val_size is None


FLOAT32 = {"width": 32, "allow_subnormal": False}  # no two of them are one to the devices
NUMBERS = {
    "l2": st.floats(0, 2.0**39, **FLOAT32),
    "l1": st.floats(0, 2.0**39, **FLOAT32),
    "learning_rate": st.floats(2.0**-99, 2.0**99, **FLOAT32),
    "weight_decay": st.floats(0, 2.0**39, **FLOAT32),
    "label_smoothing": st.floats(0, 1, exclude_max=True, **FLOAT32),
}

FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True)


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            name: st.lists(NUMBERS[name].map(abs), min_size=1, max_size=4, unique=True).map(tuple)
            for name in HYPERPARAMETERS
        },
        optional={
            "l2_on": st.text(),
            "hyperparameters": st.dictionaries(
                st.from_regex(r"own_[a-z]+", fullmatch=True),
                st.lists(
                    st.floats(-(2.0**99), 2.0**99, **FLOAT32).map(lambda x: x + 0.0),
                    min_size=1,
                    max_size=2,
                    unique=True,
                ).map(tuple),
                max_size=2,
            ),
            "model": st.one_of(st.none(), st.from_regex(r"[^\n]+\.py:[A-Za-z_]+", fullmatch=True)),
            "optimizer": st.sampled_from([*OPTIMIZERS, "a b.py:make"]),
            "seeds": st.integers(1, 10),
            "epochs": st.integers(1, 10**6),
            "batch_size": st.integers(1, 400),
            "train_size": st.one_of(st.none(), st.integers(400, 10**9), FRACTIONS),
            "val_size": st.one_of(st.just("test"), st.integers(1, 10**9), FRACTIONS),
            "folds": st.integers(1, 10),
            "label_noise": st.floats(0, 1),
            "dataset": st.text(),
            "image_size": st.one_of(st.none(), st.integers(1, 10**9)),
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
