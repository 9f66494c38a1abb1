"""What a compiled program does on an accelerator is read from its text; the budgets of a step hold."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from hlo import loops, size  # noqa: E402


def test_size_of_a_shape():
    assert size("f32[10,20]{1,0}") == 800
    assert size("(bf16[3]{0}, s8[], /*index=2*/pred[4,2]{1,0})") == 6 + 1 + 8


def test_loops_of_a_compiled_program():
    def known(x, y):
        return jax.lax.fori_loop(0, 7, lambda _, x: jnp.tanh(x @ y), x)

    def unknown(x, y, n):
        return jax.lax.fori_loop(0, n, lambda _, x: jnp.tanh(x @ y), x)

    x, y = jnp.ones((64, 64)), jnp.ones((64, 64))
    (loop,) = loops(jax.jit(known).lower(x, y).compile().as_text())
    assert (loop.trips, loop.inner_loops, loop.selects) == (7, 0, 0)
    assert loop.written >= 2 * x.nbytes and loop.buffers[0][0] == x.nbytes
    assert loop.products == 1 and loop.launches >= 2
    (loop,) = loops(jax.jit(unknown).lower(x, y, 7).compile().as_text())
    assert loop.trips is None


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("jax_plugins"), reason="needs the extra [aot]")
def test_a_step_on_an_h100_stays_within_its_budget():
    result = subprocess.run([sys.executable, BENCHMARKS / "compile_for.py", "h100"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
