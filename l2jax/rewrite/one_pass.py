"""A step's update in one pass over memory: for each large parameter, all that makes it and its optimizer's state.

XLA:CPU computes each of several results by a loop of its own, and reads again each time what they share. Adam reads and
writes a kernel, its gradient and two moments twelve times where seven would do. Here the equations that make a step's
results, as far back as they are elementwise, become one loop, which writes where it reads.
"""

from __future__ import annotations

import functools
import graphlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from l2jax.native.call import call_in_place
from l2jax.native.elementwise import OPERATIONS, Operation, elementwise
from l2jax.rewrite.interpreter import Rules, bind, placed, rewrite

LEAST = 4096
"""Smaller arrays are in cache anyway."""

INLINED = Rules(dict.fromkeys(("jit", "pjit"), lambda *_, **__: None))
"""No rule for them, but what they hold is evaluated equation by equation."""

SAME = ("broadcast_in_dim", "copy")
"""Of numbers and arrays that already have the shape."""


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
    for eqns in _in_order(jaxpr.eqns, _groups(jaxpr)):
        with placed(eqns[-1]):
            values |= _at_once(eqns, values, jaxpr) if len(eqns) > 1 else _alone(eqns[0], values)
    return [_value(atom, values) for atom in jaxpr.outvars]


def _value(atom: Any, values: Mapping[Any, Any]) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]


def _alone(eqn: JaxprEqn, values: Mapping[Any, Any]) -> dict[Any, Any]:
    return dict(zip(eqn.outvars, bind(eqn, *(_value(atom, values) for atom in eqn.invars)), strict=True))


def _groups(jaxpr: Jaxpr) -> list[list[int]]:
    """The elementwise equations, by number, that make results of the jaxpr, in groups to be computed together."""
    level = _levels(jaxpr)
    group_of: dict[Any, set[int]] = {}
    for number, eqn in enumerate(jaxpr.eqns):
        (out, *_) = eqn.outvars or [None]
        if out in level:
            neighbours = [group_of[var] for var in _variables(eqn) if level.get(var) == level[out]]
            group = {number}.union(*neighbours)
            group_of |= {jaxpr.eqns[n].outvars[0]: group for n in group}
    results = [group_of[var] for var in _made(jaxpr.outvars) if var in group_of]
    return [sorted(group) for group in {id(group): group for group in results}.values() if len(group) > 1]


def _levels(jaxpr: Jaxpr) -> dict[Any, int]:
    """For what elementwise equations make: how often its past has left such equations.

    Neighbours of one level can be computed together. What leaves them and comes back, such as a norm that gradients are
    clipped by, is of a higher level. What only higher ones use is computed with them.
    """
    past: dict[Any, int] = defaultdict(int)
    level: dict[Any, int] = {}
    users: dict[Any, list[JaxprEqn]] = defaultdict(list)
    for eqn in jaxpr.eqns:
        inputs, is_elementwise = _variables(eqn), _is_elementwise(eqn)
        its_level = max((past[var] + (var in level and not is_elementwise) for var in inputs), default=0)
        past.update(dict.fromkeys(eqn.outvars, its_level))
        level.update(dict.fromkeys(eqn.outvars, its_level) if is_elementwise else {})
        for var in inputs:
            users[var].append(eqn)
    for var in reversed(level):
        levels = {level.get(out, -1) for eqn in users[var] for out in eqn.outvars or [None]}
        if len(levels) == 1 and levels != {-1}:
            (level[var],) = levels
    return level


def _is_elementwise(eqn: JaxprEqn) -> bool:
    shape = _aval(eqn.outvars[0]).shape if len(eqn.outvars) == 1 else ()
    if math.prod(shape) < LEAST:
        return False
    avals = [_aval(atom) for atom in (*eqn.invars, *eqn.outvars)]
    is_float = all(aval.dtype == jnp.float32 and aval.shape in ((), shape) for aval in avals)
    return is_float and (eqn.primitive.name in OPERATIONS or eqn.primitive.name in SAME or _power(eqn) in (1, 2, 3))


def _aval(atom: Any) -> Any:
    """Shape and type of a variable or literal."""
    return atom.aval


def _power(eqn: JaxprEqn) -> int:
    return eqn.params["y"] if eqn.primitive.name == "integer_pow" else 0


def _variables(eqn: JaxprEqn) -> list[Any]:
    return _made(eqn.invars)


def _made(atoms: Sequence[Any]) -> list[Any]:
    """Those that are no literals, which are nobody's outputs."""
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def _in_order(eqns: Sequence[JaxprEqn], groups: Sequence[Sequence[int]]) -> list[list[JaxprEqn]]:
    """All equations, those of a group together, after what they depend on."""
    grouped = {number for group in groups for number in group}
    nodes = [*groups, *([number] for number in range(len(eqns)) if number not in grouped)]
    made_in = {var: node for node, group in enumerate(nodes) for number in group for var in eqns[number].outvars}
    graph = {
        node: {made_in[var] for number in group for var in _variables(eqns[number]) if var in made_in} - {node}
        for node, group in enumerate(nodes)
    }
    return [[eqns[number] for number in nodes[node]] for node in graphlib.TopologicalSorter(graph).static_order()]


def _at_once(eqns: Sequence[JaxprEqn], values: Mapping[Any, Any], jaxpr: Jaxpr) -> dict[Any, Any]:
    """What a group makes, as far as it is used elsewhere."""
    made = {eqn.outvars[0] for eqn in eqns}
    shape = _aval(eqns[0].outvars[0]).shape
    inputs = dict.fromkeys(var for eqn in eqns for var in _variables(eqn) if var not in made)
    inputs = sorted(inputs, key=lambda var: var.aval.shape != shape)
    num_arrays = sum(var.aval.shape == shape for var in inputs)
    program, number = _program(eqns, inputs)

    inside = {id(eqn) for eqn in eqns}
    used = {var for eqn in jaxpr.eqns if id(eqn) not in inside for var in _variables(eqn)} | set(_made(jaxpr.outvars))
    results = [eqn.outvars[0] for eqn in eqns if eqn.outvars[0] in used]
    # A carry has the places of the one before.
    before = {out: var for out, var in zip(jaxpr.outvars, jaxpr.invars, strict=False) if not isinstance(out, Literal)}
    in_place = {inputs.index(before[var]): n for n, var in enumerate(results) if before.get(var) in inputs[:num_arrays]}
    outs = call_in_place(
        elementwise,
        [jax.ShapeDtypeStruct(shape, jnp.float32) for _ in results],
        in_place,
        *(values[var] for var in inputs),
        size=math.prod(shape),
        num_arrays=num_arrays,
        num_scalars=len(inputs) - num_arrays,
        program=program,
        made=tuple(number[var] for var in results),
    )
    return dict(zip(results, outs, strict=True))


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
        elif power := _power(eqn):
            number[eqn.outvars[0]] = functools.reduce(functools.partial(add, "mul"), operands * power)
        else:
            number[eqn.outvars[0]] = add(eqn.primitive.name, *operands)
    return tuple(program), number
