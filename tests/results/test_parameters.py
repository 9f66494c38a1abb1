"""The trial that is meant, by some of its values; parameters in files, without JAX."""

import dataclasses

import numpy as np
import pytest
from helpers.results import STRENGTHS, SWEEPS, swept_twice, synthetic

from l2jax.errors import InputError
from l2jax.results.parameters import ALL, BEST, Kept, choose_trial, params_in_folder, trial_grid, trial_index


@pytest.mark.parametrize(
    ("chosen", "l2"),
    [(0, 0.0), (1e-2, 1e-2), (0.00316, 3.16e-3), (3.17e-4, 3.16e-4), (np.float32(0.1), 0.1), ("1e-4", 1e-4)],
)
def test_the_nearest_value_is_taken(chosen, l2):
    assert choose_trial(synthetic().data, {"l2": chosen, "seed": 1}) == {"l2": l2, "seed": 1}


def test_a_value_that_rounds_to_the_same_three_digits_is_taken():
    third = 1e-3 ** (2 / 3)
    data = synthetic((0.0, third, third * 1.003)).data
    assert choose_trial(data, {"l2": float(f"{third:.3g}"), "seed": 0})["l2"] == third
    assert choose_trial(data, {"l2": third * 1.003, "seed": 0})["l2"] == third * 1.003


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({}, "l2: got nothing; accepted: 0, 0.0001, 0.000316, 0.001, 0.00316, 0.01, 0.0316 or 0.1"),
        ({"l2": 0.0}, "seed: got nothing; accepted: 0, 1 or 2"),
        ({"l2": 0.0, "seed": 3}, "seed: got 3; accepted: 0, 1 or 2"),
        ({"l2": 0.0, "seed": 0.999}, "seed: got 0.999; accepted: 0, 1 or 2"),
        ({"l2": 0.0, "seed": None}, "seed: got None; accepted: 0, 1 or 2"),
        ({"l2": 1e-9, "seed": 0}, "l2: got 1e-09; accepted: 0, 0.0001"),
        ({"l2": 0.0102, "seed": 0}, "l2: got 0.0102; accepted: 0, 0.0001"),
        ({"l2": np.nan, "seed": 0}, "l2: got nan; accepted: 0, 0.0001"),
        ({"l2": [0.0], "seed": 0}, "l2: got [0.0]; accepted: 0, 0.0001"),
        ({"strength": 0.0}, "strength: got 0.0; accepted: values of l2, seed"),
        ({"fold": 0}, "fold: got 0; accepted: values of l2, seed"),
    ],
)
def test_what_names_no_trial_is_one_line(chosen, message):
    with pytest.raises(InputError) as raised:
        choose_trial(synthetic().data, chosen)
    assert str(raised.value).startswith(message)


def test_what_does_not_vary_need_not_be_named():
    assert choose_trial(SWEEPS["one seed"].data, {"l2": 0.1}) == {"l2": 0.1, "seed": 0}
    one = synthetic((0.0,), seeds=1).data.assign_coords(momentum=0.9)
    assert choose_trial(one, {}) == {"l2": 0.0, "seed": 0, "momentum": 0.9}
    assert choose_trial(one, {"momentum": 0.9})["momentum"] == 0.9
    with pytest.raises(InputError, match=r"^momentum: got 0.8; accepted: 0.9$"):
        choose_trial(one, {"momentum": 0.8})


def test_dimensions_may_have_any_name():
    data = swept_twice().data.rename(learning_rate="dropout")
    assert choose_trial(data, {"l2": 1e-3, "dropout": 0.01, "seed": 2}) == {"l2": 1e-3, "dropout": 0.01, "seed": 2}
    with pytest.raises(InputError, match=r"^dropout: got nothing; accepted: 0.1 or 0.01$"):
        choose_trial(data, {"l2": 1e-3, "seed": 2})


@pytest.fixture
def stored(tmp_path):
    """Results with one number per trial as their only parameter: its row in the table of trials."""
    results = synthetic()
    num_trials = len(results.trials_table())
    best = trial_index(trial_grid(results.data), results.best_trial())
    np.savez(tmp_path / BEST, number=np.float32(best))
    np.savez(tmp_path / ALL, number=np.arange(num_trials, dtype=np.float32))
    return results, lambda: with_params(results, tmp_path, best), tmp_path


def with_params(results, folder, best):
    read = params_in_folder(folder, len(results.trials_table()), lambda: best)
    return dataclasses.replace(results, kept=Kept(trial_grid(results.data), read, lambda *_: None))


def test_rows_are_those_of_the_table_of_trials(stored):
    results, load, folder = stored
    for row, trial in results.trials_table()[["l2", "seed"]].iterrows():
        assert load().params(**trial)["number"] == row
    assert load().params() == load().params(**results.best_trial())
    (folder / BEST).unlink()
    assert load().params() == load().params(**results.best_trial())


def test_the_best_trial_alone_is_kept(stored):
    results, load, folder = stored
    (folder / ALL).unlink()
    best = results.best_trial()
    assert load().params() == load().params(**best)
    others = [trial for _, trial in results.trials_table()[["l2", "seed"]].iterrows() if dict(trial) != best]
    assert len(others) == 3 * len(STRENGTHS) - 1
    for trial in others:
        with pytest.raises(InputError, match=r"^params: got l2=.*, seed=.; accepted: the best trial alone"):
            load().params(**trial)


def test_results_alone_have_no_parameters():
    with pytest.raises(InputError, match=r"^params: got results alone; accepted: those that l2jax.sweep or"):
        synthetic().params()


def test_all_parameters_of_another_number_of_trials_are_refused(stored):
    _, load, folder = stored
    np.savez(folder / ALL, number=np.zeros(3))
    with pytest.raises(InputError, match=r"all_params.npz: arrays of another number of trials than 24$"):
        load().params(l2=0.1, seed=0)


def test_files_without_a_pickle_alone_are_read(stored):
    _, load, folder = stored
    np.savez(folder / BEST, number=np.array([{}]))
    with pytest.raises(InputError, match="allow_pickle=False"):
        load().params()
