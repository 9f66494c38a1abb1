"""Charts as data: their traces by title, and comparisons up to the digits that the page holds."""

import re

import numpy as np


def in_scheme(value, scheme):
    if isinstance(value, dict):
        return {key: in_scheme(item, scheme) for key, item in value.items()}
    if isinstance(value, list):
        return [in_scheme(item, scheme) for item in value]
    return value.split("|")[scheme] if isinstance(value, str) and re.fullmatch(r"#\w{6}\|#\w{6}", value) else value


def traces(charts):
    return {chart.title: chart.figure["data"] for chart in charts}


def close(actual, expected):
    np.testing.assert_allclose(np.array(actual, float), expected, rtol=1e-5, atol=1e-9)
