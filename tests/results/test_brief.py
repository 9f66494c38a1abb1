"""The answer in a few lines: the numbers of the results, and no claim that the verdict does not make."""

from __future__ import annotations

import pytest
from helpers.results import STRENGTHS, simulated, synthetic, with_last

from l2jax import stats
from l2jax.results.brief import brief
from l2jax.results.results import Results
from l2jax.results.verdict import verdict


def mean(results: Results, metric: str, l2: float) -> float:
    return float(results.settings_table()[metric][l2])


def test_the_answer_comes_first_with_its_numbers():
    results = synthetic(seeds=5)
    best = results.best()
    row = stats.compare(stats.outcomes(results)).loc[best]
    answer, loss, accuracy, overfitting, stopping, test = brief(results)
    assert answer == "L2 lowers validation loss here."
    means = f"{mean(results, 'val_loss', best):.3g} (without L2 {mean(results, 'val_loss', 0):.3g})"
    sure = f"a clear change: {row['low']:+.2g} to {row['high']:+.2g} with 95% confidence."
    assert loss == f"Best is l2 = {best:.3g}: validation loss {means}, {sure}"
    means = f"{mean(results, 'val_accuracy', best):.1%} (without L2 {mean(results, 'val_accuracy', 0):.1%})"
    assert accuracy == f"Accuracy there: {means}, a clear change."
    means = f"{mean(results, 'gap', best):.3g} (without L2 {mean(results, 'gap', 0):.3g})"
    assert overfitting == f"Overfitting: validation loss ends {means} above training loss."
    lowest = results.data["val_loss"].min("epoch").mean("seed")
    assert stopping.startswith(f"Early stopping: at its best epoch, l2 = {best:.3g} has {float(lowest.min()):.3g} (")
    means = f"{mean(results, 'test_loss', best):.3g} (without L2 {mean(results, 'test_loss', 0):.3g})"
    assert test.startswith(f"Test part: loss {means}, accuracy ")


def test_what_may_be_chance_is_called_so():
    results = with_last("val_loss", [[0.30, 0.50, 0.40], [0.45, 0.30, 0.35], [0.6, 0.7, 0.8]])
    answer, loss, further, *_ = brief(results)
    assert answer == "No evidence either way."
    assert "which may be chance" in loss and "clear change" not in loss
    assert further.startswith("It is the weakest tried: look further with --l2 0 ")


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_are_too_few_to_be_sure(seeds):
    _, loss, *_ = brief(synthetic(seeds=seeds))
    assert loss.endswith(f"which may be chance: {seeds} of the 3 pairs that it takes to tell.")
    assert not any("clear" in line for line in brief(synthetic(seeds=seeds)))


def test_a_single_strength_has_nothing_beside_it():
    lines = brief(synthetic((0.1,), seeds=1))
    assert lines[0] == "Only one strength was tried: there is nothing to compare it with."
    assert not any("without" in line for line in lines)


def test_divergence_and_the_test_set_are_said():
    data = synthetic(seeds=3).data
    diverged = data["diverged"].copy()
    diverged[{"l2": -1, "seed": 0}] = True
    lines = brief(Results(data.assign(diverged=diverged), {"sweep": {"val_size": "test"}}))
    assert lines[0] == "The validation data of this run are the test set."
    assert lines[-1].startswith("Divergence: 1 of 24 trials diverged")
    assert not any(line.startswith("Test part") for line in lines)
    everything = Results(data.assign(diverged=diverged | True), {})
    assert brief(everything)[0] == "Every strength has a diverged trial: none can be called best."


@pytest.mark.parametrize("effect", [0.0, -0.005, -0.02, 0.02])
def test_the_brief_claims_what_the_verdict_claims(effect):
    for losses in simulated(10, 4, 5, effect):
        results = with_last("val_loss", losses, l2=STRENGTHS[:4])
        answer = next(str(finding) for finding in verdict(results) if not finding.label)
        lines = brief(results)
        assert lines[0] in answer
        assert ("a clear change" in lines[1]) == ("a clearly lower validation loss" in answer)
        assert len(lines) <= 7 and all(len(line) < 130 for line in lines)
