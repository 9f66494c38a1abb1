"""The rule for convolutions against XLA's own, values and gradients, over generated shapes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import plain
from helpers.compare import assert_close
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jax import lax

from l2jax.rewrite.interpreter import rewrite
from l2jax.rewrite.platforms import CPU

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}
generated = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def normal(seed, shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(dtype)


def value_and_grads(f, x, kernel):
    out, vjp = jax.vjp(f, x, kernel)
    return out, *vjp(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(out.dtype))


def assert_equals_xla(x, kernel, tolerance=3e-6, **options):
    """The rule takes the convolution, and gives XLA's result."""

    def xla(x, kernel):
        return lax.conv_general_dilated(x, kernel, **options)

    ours = rewrite(xla, CPU)
    assert is_rewritten(ours, x, kernel)
    expected = plain.jit(functools.partial(value_and_grads, xla))(x, kernel)
    actual = plain.jit(functools.partial(value_and_grads, ours))(x, kernel)
    assert jax.tree.map(lambda a: a.dtype, actual) == jax.tree.map(lambda a: a.dtype, expected)
    assert_close(
        *(jax.tree.map(lambda a: np.asarray(a, np.float32), arrays) for arrays in (actual, expected)), tolerance
    )


def is_rewritten(f, *args):
    return "custom_vjp" in str(jax.make_jaxpr(f)(*args))


@st.composite
def convolutions(draw, rank):
    """Arrays and options of a convolution whose output is not empty."""

    def per_axis(values):
        return draw(st.tuples(*[values] * rank))

    is_spread, groups = rank < 3 and draw(st.booleans()), draw(st.sampled_from([1, 1, 2, 3, 6]))
    kernel, dilation = per_axis(st.integers(1, 5 if rank < 3 else 3)), per_axis(st.integers(1, 2))
    spacing = per_axis(st.integers(1, 3)) if is_spread else (1,) * rank
    strides = (1,) * rank if max(spacing) > 1 else per_axis(st.integers(1, 3))
    pads = per_axis(st.tuples(st.integers(-1, 3), st.integers(0, 3)))
    sizes = [
        draw(st.integers(max(1, -(-((k - 1) * d + 1 - sum(pair) - 1) // s) + 1), 11)) + (min(pair) < 0)
        for k, d, pair, s in zip(kernel, dilation, pads, spacing, strict=True)
    ]
    channels, features = (groups * draw(st.sampled_from(sizes_)) for sizes_ in ([1, 2, 8], [1, 3, 4, 16]))
    x, k = (draw(st.integers(1, 4)), *sizes, channels), (*kernel, channels // groups, features)
    options = {"window_strides": strides, "padding": pads, "lhs_dilation": spacing, "rhs_dilation": dilation}
    return x, k, options | {"feature_group_count": groups, "dimension_numbers": LAYOUTS[rank]}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_equal_xla(rank):
    @generated
    @given(convolutions(rank))
    def check(case):
        x, kernel, options = case
        assert_equals_xla(normal(0, x), normal(1, kernel), **options)

    check()


@generated
@given(
    sizes=st.tuples(*[st.integers(4, 19)] * 2),
    pads=st.tuples(*[st.tuples(st.integers(-2, 2), st.integers(-2, 3))] * 2),
    channels=st.sampled_from([16, 23, 32]),
    features=st.sampled_from([16, 33, 40]),
)
def test_kernels_of_3x3_equal_xla(sizes, pads, channels, features):
    assume(all(n + sum(pair) >= 4 for n, pair in zip(sizes, pads, strict=True)))
    options = {"window_strides": (1, 1), "padding": pads, "dimension_numbers": LAYOUTS[2]}
    assert_equals_xla(normal(0, (2, *sizes, channels)), normal(1, (3, 3, channels, features)), **options)


def test_fewer_multiplications_are_about_as_exact_as_all():
    shapes = (4, 12, 12, 64), (3, 3, 64, 64)
    convolve = functools.partial(
        lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=LAYOUTS[2]
    )
    ours = rewrite(convolve, CPU)
    x, kernel = (normal(seed, shape) for seed, shape in enumerate(shapes))
    assert "l2jax_convolve" in plain.jit(ours).lower(x, kernel).as_text()
    actual, expected = (plain.jit(functools.partial(value_and_grads, f))(x, kernel) for f in (ours, convolve))
    with jax.enable_x64():
        exact = plain.jit(functools.partial(value_and_grads, convolve))(x.astype(np.float64), kernel.astype(np.float64))
    for ours, xla, right in zip(*(map(np.float64, arrays) for arrays in (actual, expected, exact)), strict=True):
        assert np.std(ours - right) < 2 * np.std(xla - right)


@pytest.mark.parametrize(("channels", "features"), [(3, 6), (16, 16), (32, 32), (64, 32), (33, 40), (1, 32)])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (5, 1), (3, 2), (1, 1), (1, 2)])
def test_sizes_of_real_networks_equal_xla(channels, features, size, stride):
    options = {"window_strides": (stride, stride), "padding": "SAME", "dimension_numbers": LAYOUTS[2]}
    assert_equals_xla(normal(0, (16, 8, 9, channels)), normal(1, (size, size, channels, features)), **options)


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("channels", [6, 16, 37, 96])
@pytest.mark.parametrize(("strides", "dilation"), [((2, 1), (1, 1)), ((1, 1), (1, 2)), ((2, 3), (2, 1))])
def test_depthwise_convolutions_equal_xla(multiplier, channels, strides, dilation):
    options = {"window_strides": strides, "padding": "SAME", "dimension_numbers": LAYOUTS[2], "rhs_dilation": dilation}
    x, kernel = normal(0, (2, 9, 20, channels)), normal(1, (3, 5, 1, channels * multiplier))
    assert_equals_xla(x, kernel, feature_group_count=channels, **options)


@pytest.mark.parametrize("numbers", [("NCHW", "OIHW", "NCHW"), ("HWNC", "IOHW", "CNHW")])
def test_layouts_equal_xla(numbers):
    shapes = [
        tuple({"N": 2, "H": 6, "W": 7, "C": 3, "I": 3, "O": 5}[axis] for axis in layout) for layout in numbers[:2]
    ]
    shapes[1] = tuple(3 if axis in "HW" else size for axis, size in zip(numbers[1], shapes[1], strict=True))
    x, kernel = (normal(seed, shape) for seed, shape in enumerate(shapes))
    assert_equals_xla(x, kernel, window_strides=(1, 2), padding="SAME", dimension_numbers=numbers)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_equals_xla_to_its_rounding(dtype):
    x, kernel = normal(0, (2, 8, 8, 3), dtype), normal(1, (3, 3, 3, 4), dtype)
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUTS[2]}
    assert_equals_xla(x, kernel, tolerance=2 * float(jnp.finfo(dtype).eps), **options)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 6, 6, 4), {"lhs_dilation": (2, 2), "window_strides": (2, 2)}),
        ((2, 6, 6, 4), {"batch_group_count": 2}),
        ((2, 6, 6, 4), {"precision": lax.DotAlgorithmPreset.F32_F32_F32}),
    ],
)
def test_others_stay_as_they_are(shape, options):
    options = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "dimension_numbers": LAYOUTS[2]} | options
    f = functools.partial(lax.conv_general_dilated, **options)
    assert not is_rewritten(rewrite(f, CPU), normal(0, shape), normal(1, (3, 3, 4, 4)))
