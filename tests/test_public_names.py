"""The public names: each is there, help lists it, and old ones warn."""

import pydoc
import re

import pytest

import l2jax
import l2jax.prepare


def test_every_name_is_there():
    assert {*l2jax.__all__, "__version__"} == {*dir(l2jax)}
    assert all(hasattr(l2jax, name) for name in dir(l2jax))


@pytest.mark.parametrize("module", [l2jax.ops, l2jax.plot, l2jax.prepare, l2jax.report, l2jax.stats])
def test_help_shows_every_public_function(module):
    text = re.sub(".\b", "", pydoc.render_doc(module))  # without the bold type of terminals
    assert module.__all__ and all(f"    {name}" in text for name in module.__all__)


def test_the_error_has_its_old_name_which_warns():
    with pytest.warns(DeprecationWarning, match=r"l2jax\.InvalidInput is now l2jax\.InputError"):
        assert l2jax.InvalidInput is l2jax.InputError


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'swep'"):
        _ = l2jax.swep
