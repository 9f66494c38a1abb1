"""The verdict: no claim without evidence, against scipy's paired test and sweeps whose truth is known."""

import re

import numpy as np
import pytest
import xarray as xr
from helpers.results import CURVES, STRENGTHS, simulated, synthetic, with_last
from scipy import stats as scipy_stats

from l2jax import stats
from l2jax.results.results import Results
from l2jax.results.verdict import Finding, verdict


def whole_text(results: Results) -> str:
    return "\n".join(map(str, verdict(results)))


def answer(results: Results) -> str:
    return str(verdict(results)[0])


def change(results: Results, metric: str, l2: float, unit="", scale=1) -> str:
    """Mean and 95% interval of the paired differences to strength 0 by scipy's test, as the verdict writes them."""
    last = results.data.isel(epoch=-1).astype(np.float64)
    last["gap"] = last["val_loss"] - last["train_loss"]
    test = scipy_stats.ttest_rel(last[metric].sel(l2=l2) * scale, last[metric].sel(l2=0.0) * scale)
    low, high = test.confidence_interval(0.95)
    mean = (low + high) / 2
    return f"({mean:+.2g}{unit}, 95% interval {low:+.2g} to {high:+.2g}"


def test_a_true_effect_is_stated_with_its_intervals():
    results = synthetic(seeds=5)
    first, choice, overfitting, accuracy, stopping, test = map(str, verdict(results))
    best = results.best()
    p = stats.compare(stats.outcomes(results))["p_holm"][best]
    assert first.startswith(
        f"L2 lowers validation loss here. Against no L2, l2 = {best:.3g} ended with a clearly lower"
    )
    assert (
        f"{change(results, 'val_loss', best)}, 5 pairs, p = {p:.2g} after Holm's correction for 7 strengths)" in first
    )
    assert choice == f"Lowest mean validation loss: l2 = {best:.3g}. One-standard-error rule: l2 = {best:.3g}."
    gap = scipy_stats.ttest_1samp(stats.outcomes(results)["gap"][0], 0).confidence_interval(0.95)
    assert f"(95% interval {gap[0]:.2g} to {gap[1]:.2g}) above training loss" in overfitting
    assert f"a clearly lower gap between validation and training loss {change(results, 'gap', best)})" in overfitting
    assert f"a clearly higher validation accuracy {change(results, 'val_accuracy', best, ' points', 100)})" in accuracy
    assert "a clearly lower validation loss" in stopping
    assert change(stats.early_stopped(results), "val_loss", best) in stopping
    assert "a clearly lower test loss" in test


def test_nothing_is_claimed_without_support_of_the_interval():
    results = with_last("val_loss", [[0.30, 0.50, 0.40], [0.45, 0.30, 0.35], [0.6, 0.7, 0.8]])
    first = answer(results)
    assert first.startswith("No evidence either way. The lowest mean is at l2 = 0.01")
    assert f"no clear change in validation loss {change(results, 'val_loss', 0.01)}, 3 pairs, p = " in first
    assert "clearly" not in first


def test_nothing_is_claimed_that_the_correction_refutes():
    losses = [[0.30, 0.50, 0.40], [0.27, 0.48, 0.375], *([0.3, 0.6, 0.5 + i / 10] for i in range(6))]
    results = with_last("val_loss", losses, l2=STRENGTHS)
    row = stats.compare(stats.outcomes(results)).loc[1e-4].to_dict()
    assert row["p"] < 0.05 < row["p_holm"] and row["high"] < 0
    first = answer(results)
    assert first.startswith("No clear evidence: what L2 seems to change may be chance")
    assert f"{change(results, 'val_loss', 1e-4)}, too wide once corrected for several strengths" in first


def with_losses(losses: np.ndarray) -> Results:
    """Results of one epoch with the given losses (strengths, seeds)."""
    template = synthetic(STRENGTHS[: len(losses)], losses.shape[1], epochs=1).data
    rest = {name: template[name] * 0 for name in CURVES}
    return Results(template.assign(rest | {"val_loss": (template["val_loss"].dims, losses[..., None])}), {})


def test_fewer_than_1_in_20_verdicts_on_null_sweeps_claim():
    sweeps = simulated(1000, 8, 3)
    _, p = stats.differences_to_first(sweeps)
    claimed = (p < 0.05).any(-1)
    assert 20 < claimed.sum() < 50
    for index in [*np.flatnonzero(claimed)[:10], *np.flatnonzero(~claimed)[:10]]:  # the words say what the numbers do
        first = answer(with_losses(sweeps[index]))
        assert ("clearly" in first) == claimed[index] == (not re.match("No (clear )?evidence", first))


def test_harm_is_stated():
    results = with_last("val_loss", [[0.30, 0.31, 0.33], [0.40, 0.41, 0.43], [0.50, 0.511, 0.53]])
    results.data["val_loss"].values[:, :, -1] += np.random.default_rng(0).normal(0, 1e-4, (3, 3))
    first = answer(results)
    assert first.startswith("No strength clearly lowers validation loss. The lowest mean is that of no L2;")
    assert first.endswith("It is clearly higher at l2 = 0.01, 0.1.")


def test_a_float32_rounding_error_is_a_change_of_0():
    accuracies = [[0.942, 0.941, 0.914], [0.929, 0.943, 0.925], [0.9, 0.9, 0.9]]  # the first two add up to the same
    results = with_last("val_accuracy", accuracies)
    results.data["val_loss"].values[:, :, -1] = [[0.3, 0.4, 0.5], [0.1, 0.2, 0.3], [0.6, 0.6, 0.6]]
    assert stats.compare(stats.outcomes(results), "val_accuracy")["mean"][0.01] != 0
    assert results.best() == 0.01 and "validation accuracy (+0 points, 95% interval" in whole_text(results)


def test_pairs_are_seeds_that_finished_at_both_strengths():
    results = synthetic(seeds=5, diverged=[(0.0, 2, 3)])
    finished = Results(results.data.isel(seed=[0, 1, 3, 4]), {})
    first, *_, diverged = map(str, verdict(results))
    assert f"{change(finished, 'val_loss', results.best())}, 4 pairs" in first
    assert diverged.startswith("Divergence: 1 of 40 trials diverged, at l2 = 0. They are left out")
    results.data["val_loss"].loc[{"l2": 0.0, "seed": 2, "epoch": 20}] = 0.3  # finite again, but not to be trusted
    assert answer(results) == first


@pytest.mark.parametrize(("seeds", "pairs"), [(1, "is 1"), (2, "are 2")])
def test_fewer_than_three_seeds_have_no_interval(seeds, pairs):
    text = whole_text(synthetic(seeds=seeds))
    assert text.startswith("Whether L2 lowers validation loss cannot be told from chance.")
    assert f"One takes 3 pairs, seeds that finished at both strengths, and there {pairs} here" in text
    assert "95%" not in text and "clear" not in text
    assert ("one seed has no standard error" in text) == (seeds == 1)


def test_three_folds_of_one_seed_have_an_interval():
    data = synthetic().data.rename(seed="fold").expand_dims(seed=[0])
    assert "3 pairs, p = " in answer(Results(data, {}))


def test_without_0_the_weakest_strength_is_the_reference():
    assert "Against l2 = 0.0001 (the weakest tried; 0 was not), l2 = " in whole_text(synthetic(STRENGTHS[1:]))


def test_at_an_edge_further_strengths_are_suggested():
    low, mid, high = [0.3, 0.31, 0.32], [0.4, 0.41, 0.42], [0.5, 0.51, 0.52]
    text = whole_text(with_last("val_loss", [high, mid, low]))
    assert "l2 = 0.1 is the strongest tried: try stronger ones, such as --l2 0 1 10 100." in text
    text = whole_text(with_last("val_loss", [mid, low, high]))
    assert "l2 = 0.01 is the weakest tried above 0: try weaker ones, such as --l2 0 1e-05 0.0001 0.001." in text
    assert "--l2" not in whole_text(with_last("val_loss", [low, mid, high]))
    assert "--l2" not in whole_text(with_last("val_loss", [high, mid, low, high], l2=(0.0, 0.01, 0.1, 1.0)))
    assert "Only one strength" in whole_text(synthetic((0.01,)))


def test_loss_and_accuracy_that_disagree_are_mentioned():
    best = with_last("val_accuracy", [[0.90, 0.91, 0.92], [0.94, 0.95, 0.96], [0.89, 0.90, 0.91]])
    assert best.best() == 0.01
    assert "disagree" not in whole_text(best)
    text = whole_text(with_last("val_accuracy", [[0.95, 0.96, 0.97], [0.930, 0.941, 0.949], [0.89, 0.90, 0.91]]))
    assert "a clearly lower validation accuracy (-2 points" in text
    assert "disagree: mean validation accuracy is highest at l2 = 0." in text
    accuracies = [[0.90, 0.92, 0.91, 0.91, 0.90], [0.90, 0.91, 0.93, 0.90, 0.92], [0.93, 0.92, 0.91, 0.90, 0.94]]
    results = with_last("val_accuracy", accuracies)
    text = whole_text(results)
    assert "The loss changed clearly, the accuracy did not." in text and "highest at l2 = 0.1" in text
    expected = change(results, "val_accuracy", 0.1, " points", 100)
    assert f"l2 = 0.1 ended with no clear change in validation accuracy {expected}" in text


def test_calibration_is_mentioned_if_it_was_measured():
    results = synthetic(seeds=5)
    data = results.data.assign(val_ece=results.data["val_loss"] / 10)
    assert "no clear change in calibration error" not in whole_text(Results(data, {}))
    assert "and a clearly lower calibration error (-1.3 points" in whole_text(Results(data, {}))
    assert "calibration" not in whole_text(results)


def test_diverged_sweeps_have_a_verdict():
    everything = [(l2, seed, 1) for l2 in (0.0, 0.1) for seed in range(3)]
    text = whole_text(synthetic((0.0, 0.1), diverged=everything))
    assert "none can be called best" in text and "6 of 6 trials diverged, at l2 = 0, 0.1" in text
    text = whole_text(synthetic(diverged=[(0.0, seed, 4) for seed in range(3)]))
    assert "No seed finished both with no L2 and at another strength" in text and "nan" not in text
    apart = whole_text(synthetic((0.0, 0.01, 0.1), diverged=[(0.0, 0, 4), (0.0, 1, 4), (0.01, 2, 4)]))
    assert "nan" not in apart


def test_validation_on_the_test_set_gives_a_warning():
    results = synthetic()
    on_test = Results(results.data, {"sweep": {"val_size": "test"}})
    assert answer(on_test).startswith("Warning: The validation data of this run are the test set.")
    assert "Test set" not in whole_text(on_test)
    assert "Warning" not in whole_text(results) and "Test set" in whole_text(results)


def test_the_test_set_is_left_out_if_it_was_not_evaluated():
    assert "est set" not in whole_text(synthetic(test=False))


def test_equal_trials_have_a_change_of_0():
    text = whole_text(with_last("val_accuracy", [[0.9] * 3, [0.9] * 3, [0.8] * 3]))
    assert "a mean change in validation accuracy of +0 points (the same in every pair)" in text


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("l2", [(0.0,), (0.0, 0.1), (0.1,), STRENGTHS])
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_shape_of_sweep_has_a_verdict(epochs, l2, seeds):
    text = whole_text(synthetic(l2, seeds, epochs))
    assert text and not re.search(r"nan|\binf\b|  ", text)


def test_the_order_of_dimensions_does_not_matter():
    data = xr.concat([synthetic().data, synthetic(noise=0.02).data], xr.Variable("fold", [0, 1]))
    turned = data.transpose("epoch", "fold", "seed", "l2").isel(l2=slice(None, None, -1))
    assert verdict(Results(turned, {})) == verdict(Results(data, {}))


def test_a_finding_is_text_or_its_parts():
    assert str(Finding("Accuracy", "It rose.", "The loss did not.")) == "Accuracy: It rose. The loss did not."
    assert str(Finding("", "It helps.")) == "It helps."
    findings = verdict(synthetic(seeds=5))
    assert [finding.label for finding in findings] == [
        "",
        "Lowest mean validation loss",
        "Overfitting",
        "Accuracy",
        "Early stopping",
        "Test set",
    ]
    assert all(finding.lead.endswith(".") and not finding.details.startswith(" ") for finding in findings)
