"""Colours of charts in both schemes."""

import numpy as np

from l2jax.report import theme


def test_colours_of_strengths_differ_and_stand_out():
    strengths = np.array([0, *np.logspace(-4, -1, 7)])
    for scheme, back in ((0, 1.0), (1, 0.1)):
        colours = [colour.split("|")[scheme] for colour in theme.colours_of_both_schemes(strengths)]
        assert len(set(colours)) == 8
        for colour in colours:
            red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
            assert abs(0.2126 * red + 0.7152 * green + 0.0722 * blue - back) > 0.15
