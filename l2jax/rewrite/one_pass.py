"""A step's update in one pass over memory: for each large parameter, all that makes it and its optimizer's state.

XLA:CPU computes each of several results by a loop of its own, and reads again each time what they share. Adam with a
penalty so reads and writes a kernel, its gradient and two moments fifteen times. Here the equations that make a step's
results, as far back as they are elementwise, become one loop, which writes where it reads. It also sums the penalty,
and makes the gradient of a dense layer where it needs it: six times are left.
"""

from __future__ import annotations

import functools
import graphlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from l2jax.native.call import call_in_place
from l2jax.native.elementwise import Operation, elementwise, partial_sums, product_elementwise
from l2jax.rewrite.groups import SAME, Group, Product, aval, groups, power, variables
from l2jax.rewrite.interpreter import Rules, bind, placed, rewrite

MOST_ROWS = 8
"""Rows of a product that are made at a time (measured: with more, what is read and written is further apart)."""

INLINED = Rules(dict.fromkeys(("jit", "pjit"), lambda *_, **__: None))
"""No rule for them, but what they hold is evaluated equation by equation."""


def in_one_pass(step: Callable) -> Callable:
    """The function (carry, *others) to the next carry, with its large results computed in one pass each."""

    @functools.wraps(step)
    def wrapped(*args: Any) -> Any:
        closed, out = jax.make_jaxpr(rewrite(step, INLINED), return_shape=True)(*args)
        return jax.tree.unflatten(jax.tree.structure(out), _evaluate(closed, jax.tree.leaves(args)))

    return wrapped


def _evaluate(closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args), strict=True))
    for node in _in_order(jaxpr.eqns, groups(jaxpr)):
        if isinstance(node, Group):
            with placed(jaxpr.eqns[node.elementwise[-1]]):
                values |= _at_once(node, values, jaxpr)
        else:
            with placed(jaxpr.eqns[node]):
                values |= _alone(jaxpr.eqns[node], values)
    return [_value(atom, values) for atom in jaxpr.outvars]


def _value(atom: Any, values: Mapping[Any, Any]) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]


def _alone(eqn: JaxprEqn, values: Mapping[Any, Any]) -> dict[Any, Any]:
    return dict(zip(eqn.outvars, bind(eqn, *(_value(atom, values) for atom in eqn.invars)), strict=True))


def _in_order(eqns: Sequence[JaxprEqn], groups: Sequence[Group]) -> list[Group | int]:
    """All groups, and the numbers of the other equations, each after what it depends on."""
    members = [group.all for group in groups]
    grouped = {number for numbers in members for number in numbers}
    nodes: list[Group | int] = [*groups, *(number for number in range(len(eqns)) if number not in grouped)]
    numbers_of = [*members, *([node] for node in nodes[len(groups) :])]
    made_in = {var: node for node, numbers in enumerate(numbers_of) for n in numbers for var in eqns[n].outvars}
    graph = {
        node: {made_in[var] for n in numbers for var in variables(eqns[n].invars) if var in made_in} - {node}
        for node, numbers in enumerate(numbers_of)
    }
    for node, group in enumerate(groups):
        graph[node] |= {made_in[var] for var in group.after}
    return [nodes[node] for node in graphlib.TopologicalSorter(graph).static_order()]


def _at_once(group: Group, values: Mapping[Any, Any], jaxpr: Jaxpr) -> dict[Any, Any]:
    """What a group makes, as far as it is used elsewhere."""
    eqns, sums = ([jaxpr.eqns[n] for n in numbers] for numbers in (group.elementwise, group.sums))
    made = {eqn.outvars[0] for eqn in eqns}
    shape = aval(eqns[0].outvars[0]).shape
    product = [group.product.out] if group.product else []
    read = dict.fromkeys(var for eqn in (*eqns, *sums) for var in variables(eqn.invars))
    inputs = [var for var in read if var not in made and var not in product]
    arrays = [var for var in inputs if aval(var).shape == shape]
    scalars = [var for var in inputs if aval(var).shape != shape]
    program, number = _program(eqns, [*scalars, *arrays, *product])

    inside = set(group.all)
    used = {var for n, eqn in enumerate(jaxpr.eqns) if n not in inside for var in variables(eqn.invars)}
    results = [var for eqn in eqns if (var := eqn.outvars[0]) in used | set(variables(jaxpr.outvars))]
    # A carry has the places of the one before.
    before = {out: var for out, var in zip(jaxpr.outvars, jaxpr.invars, strict=False) if not isinstance(out, Literal)}
    in_place = {arrays.index(before[var]): n for n, var in enumerate(results) if before.get(var) in arrays}
    write, factors = elementwise, []
    static: dict[str, Any] = {"size": math.prod(shape)}
    if group.product:
        write, factors, static = _with_product(group.product, values)
    outs = call_in_place(
        write,
        [jax.ShapeDtypeStruct(shape, jnp.float32)] * len(results)
        + [jax.ShapeDtypeStruct(partial_sums(), jnp.float32)] * len(sums),
        {len(factors) + array: result for array, result in in_place.items()},
        *factors,
        *(values[var] for var in (*arrays, *scalars, *group.after)),
        num_arrays=len(arrays),
        num_scalars=len(scalars),
        num_others=len(group.after),
        program=program,
        made=tuple(number[var] for var in results),
        summed=tuple(number[eqn.invars[0]] for eqn in sums),
        **static,
    )
    totals = [parts[0].sum() for parts in outs[len(results) :]]
    return dict(zip((*results, *(eqn.outvars[0] for eqn in sums)), (*outs[: len(results)], *totals), strict=True))


def _with_product(product: Product, values: Mapping[Any, Any]) -> tuple[Callable[..., None], list[Any], dict[str, Any]]:
    """The code of a pass that makes a product on the way, the product's factors, and what is known of them."""
    x_CM = jnp.moveaxis(_value(product.x, values), product.x_axis, 1)
    d_MO = jnp.moveaxis(_value(product.d, values), product.d_axis, 0)
    block = max(n for n in range(1, MOST_ROWS + 1) if len(x_CM) % n == 0)
    return product_elementwise, [x_CM, d_MO], {"shape": (*x_CM.shape, d_MO.shape[1]), "block": block}


def _program(eqns: Sequence[JaxprEqn], inputs: Sequence[Any]) -> tuple[tuple[Operation, ...], dict[Any, int]]:
    """The equations as operations on numbered values, and the numbers of their variables."""
    number = {var: n for n, var in enumerate(inputs)}
    program: list[Operation] = []

    def add(name: str, *operands: Any) -> int:
        program.append((name, operands))
        return len(inputs) + len(program) - 1

    for eqn in eqns:
        operands = [
            add("constant", float(atom.val)) if isinstance(atom, Literal) else number[atom] for atom in eqn.invars
        ]
        if eqn.primitive.name in SAME:
            (number[eqn.outvars[0]],) = operands
        elif exponent := power(eqn):
            number[eqn.outvars[0]] = functools.reduce(functools.partial(add, "mul"), operands * exponent)
        else:
            number[eqn.outvars[0]] = add(eqn.primitive.name, *operands)
    return tuple(program), number
