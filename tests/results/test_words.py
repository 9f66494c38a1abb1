"""Numbers and settings as they are written."""

import pytest

from l2jax.config import HYPERPARAMETERS
from l2jax.results import words


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.001, "0.001"), (0.0031622776, "0.00316"), (1e-7, "1e-07")])
def test_numbers_have_three_digits(value, text):
    assert words.number(value) == text


def test_no_strength_is_no_l2():
    assert words.strength(0.0) == "no L2" and words.strength(0.01) == "l2 = 0.01"


def test_settings_use_the_names_of_hyperparameters():
    assert words.setting({"learning_rate": 0.001, "label_smoothing": 0.1}) == "learning rate 0.001, label smoothing 0.1"
    assert all(hyperparameter.name in words.setting({name: 1}) for name, hyperparameter in HYPERPARAMETERS.items())
    assert words.setting({}) == ""
