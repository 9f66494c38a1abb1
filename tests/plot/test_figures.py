"""All figures: they leave nothing out of place, and draw in given axes."""

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers.figures import BETWEEN, CASES
from helpers.results import swept_twice, synthetic
from matplotlib.figure import Figure
from PIL import Image

from l2jax.plot import figures, loss_curves, overfitting, validation_curve


@pytest.mark.parametrize("draw", [loss_curves, validation_curve])
@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in BETWEEN)) for case in CASES])
def test_nothing_is_clipped_or_overlaps(draw, case):
    figure = draw(CASES[case])
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    pixels = np.asarray(Image.open(png).convert("L"))
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all(), "something runs over the edge of the figure"
    for ax in figure.axes:
        labels = [label for label in ax.get_xticklabels() if label.get_text() and label.get_window_extent().width]
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes)), "tick labels overlap"
    titled = [ax.get_tightbbox() for ax in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titled)), "panels overlap"


@pytest.mark.parametrize("draw", [loss_curves, validation_curve])
def test_drawing_leaves_pyplot_and_results_alone(draw):
    import matplotlib.pyplot as plt

    results, before = synthetic(), synthetic()
    draw(results)
    assert plt.get_fignums() == [] and results == before


@pytest.mark.parametrize(("draw", "count"), [(loss_curves, 2), (overfitting, 2), (validation_curve, 3)])
def test_given_axes_are_drawn_in(draw, count):
    figure = Figure(layout="constrained")
    axes = list(figure.subplots(1, count))
    assert draw(synthetic(), axes) is figure
    assert all(ax.has_data() and ax.get_title() for ax in axes) and figure.get_suptitle() == ""
    with pytest.raises(ValueError, match=r"argument|unpack"):
        draw(synthetic(), axes[:1])


def test_the_order_of_strengths_does_not_matter():
    results = synthetic()
    shuffled = type(results)(results.data.isel(l2=[5, 0, 7, 2, 1, 6, 3, 4]), results.config)
    with matplotlib.rc_context({"savefig.dpi": 50}):
        for draw in (loss_curves, validation_curve):
            drawn = [io.BytesIO(), io.BytesIO()]
            for figure, png in zip((draw(results), draw(shuffled)), drawn, strict=True):
                figure.savefig(png, format="png")
            assert drawn[0].getvalue() == drawn[1].getvalue()


def test_figures_yields_all_that_the_results_allow():
    expected = ["loss_curves", "validation_curve", "overfitting", "objective_curves"]
    assert [name for name, _ in figures(synthetic())] == expected
    assert [name for name, _ in figures(swept_twice())][-1] == "heat_map_learning_rate"


def test_a_persons_own_style_changes_no_figure(monkeypatch):
    def drawn():
        for name, figure in figures(swept_twice()):
            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=50)
            yield name, png.getvalue()

    usual = dict(drawn())
    own = {
        "text.usetex": True,
        "font.size": 30,
        "lines.linewidth": 9,
        "axes.facecolor": "black",
        "xtick.major.size": 40,
    }
    monkeypatch.setenv("PATH", "")  # there is no LaTeX
    with matplotlib.rc_context(own):
        assert dict(drawn()) == usual


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "QtAgg"])
def test_figures_take_no_backend(backend, tmp_path):
    program = f"""
import os
from l2jax import plot
from helpers.results import synthetic
plot.loss_curves(synthetic()).savefig({str(tmp_path / "figure.png")!r})
assert os.environ["MPLBACKEND"] == {backend!r}
"""
    root = Path(__file__).parents[2]
    environment = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    finished = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("l2", [(0.0,), (1e-3,), (0.1,), (0.0, 0.1)])
def test_no_figure_of_few_trials_warns(l2, seeds):
    for _, figure in figures(synthetic(l2, seeds=seeds, epochs=1)):  # warnings are errors
        figure.savefig(io.BytesIO())
