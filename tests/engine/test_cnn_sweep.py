"""A whole sweep of the CNN, compiled as a person's is, against a loop of plain Flax."""

import jax
import pytest
from helpers import plain

import l2jax


@pytest.fixture
def compilations():
    """The programs that XLA has compiled so far."""
    compiled = []

    def listen(event, _, fun_name="", **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield compiled
    jax.monitoring.unregister_event_duration_listener(listen)


def test_cnn_sweep_equals_plain_flax_with_three_compilations(digits, compilations):
    # 70 examples in batches of 32: the last one holds 6. The command in test_cli.py needs the same programs.
    results = l2jax.sweep([0.0, 3e-2], 2, dataset=digits, epochs=5, train_size=70, val_size=32)
    # To initialise, to train an epoch, to evaluate: whatever the number of strengths, seeds and epochs.
    assert len(compilations) == 3
    plain.assert_equals_plain_loop(results, digits, lambda rngs: plain.CNN((28, 28, 1), 10, rngs=rngs))
