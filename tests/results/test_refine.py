"""Strengths to try next: beyond the grid, or around its best strength."""

from helpers.results import synthetic, with_last

from l2jax.results import refine
from l2jax.results.results import Results


def with_best_at(index, l2=(0.0, 0.001, 0.01, 0.1)) -> Results:
    return with_last(
        "val_loss", [[0.5 - 0.3 * (i == index) + 0.01 * seed for seed in range(3)] for i in range(len(l2))], l2
    )


def test_a_best_strength_at_the_edge_leads_beyond_the_grid():
    assert refine.edge(with_best_at(3)) == "strongest"
    assert refine.next_strengths(with_best_at(3)) == (1.0, 10.0, 100.0)
    assert refine.edge(with_best_at(1)) == "weakest"
    assert refine.next_strengths(with_best_at(1), 2) == (1e-5, 1e-4)
    assert refine.edge(with_best_at(0, (0.001, 0.01, 0.1))) == "weakest"


def test_a_best_strength_inside_is_surrounded():
    assert refine.edge(with_best_at(2)) is None
    assert refine.next_strengths(with_best_at(2), 1) == (0.00316, 0.0316)
    assert refine.next_strengths(with_best_at(2)) == (0.00178, 0.00316, 0.00562, 0.0178, 0.0316, 0.0562)
    assert refine.edge(with_best_at(0)) is None and refine.next_strengths(with_best_at(0), 1) == (1e-4,)


def test_grids_of_one_or_two_strengths_are_refined():
    assert refine.edge(synthetic((0.0,))) is None and refine.next_strengths(synthetic((0.0,))) == ()
    assert refine.edge(synthetic((0.01,))) is None
    assert refine.next_strengths(synthetic((0.01,)), 1) == (0.001, 0.1)
    assert refine.edge(with_best_at(1, (0.0, 0.01))) == "strongest"
    assert refine.next_strengths(with_best_at(1, (0.0, 0.01)), 2) == (0.1, 1.0)
