"""Which equations of a step can be computed together, in one pass over memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from l2jax.native.elementwise import OPERATIONS

LEAST = 4096
"""Smaller arrays are in cache anyway."""

SAME = ("broadcast_in_dim", "copy", "stop_gradient")
"""Of numbers and arrays that already have the shape."""

VIEWS = ("reshape", "transpose", "squeeze")
"""What may be the same memory still."""

MOST_SUMMED, LEAST_COLUMNS = 64, 32
"""Products that are made on the way sum over at most so many rows and have at least so many columns (measured)."""


class Product(NamedTuple):
    """A sum over the rows of two matrices, as in a dense layer's gradient: (M, C) and (M, O) make (C, O).

    Attributes:
      x, d: the two matrices.
      x_axis, d_axis: which of their axes is M.
      out: the variable that it makes.
    """

    x: Any
    d: Any
    x_axis: int
    d_axis: int
    out: Any


class Group(NamedTuple):
    """Equations to be computed together, as numbers.

    Attributes:
      elementwise: these make results of the jaxpr, from arrays of one shape and scalars.
      sums: these sum values that the others read or make.
      product: what makes one of the arrays, if it is such a product and nothing else reads it.
      product_equations: which are left out then.
      after: what others make of the arrays that these read. Once that is there, the arrays' memory can be written to.
    """

    elementwise: list[int]
    sums: list[int]
    product: Product | None
    product_equations: list[int]
    after: list[Any]

    @property
    def all(self) -> list[int]:
        """Their numbers, in order."""
        return sorted((*self.elementwise, *self.sums, *self.product_equations))


def groups(jaxpr: Jaxpr) -> list[Group]:
    """The groups that large results of a jaxpr are made by; the rest is not worth it."""
    graph = _Graph(jaxpr)
    found = [group for group in _elementwise(graph) if len(group) > 1]
    before = graph.past([number for group in found for number in group])
    complete: list[Group] = []
    for group in found:
        complete.append(_with_sums_and_product(graph, group, before))
        before |= set(complete[-1].all)
    grouped = {number for group in complete for number in group.all}
    return [group._replace(after=_other_readers(graph, group, grouped)) for group in complete]


class _Graph:
    """A jaxpr's equations, and what is known of them.

    Attributes:
      eqns, results: its equations and the variables that it returns.
      made_by, read_by: by variable, the number of what makes and the numbers of what reads it.
      elementwise: the numbers of those that are, of large arrays.
      needed: the numbers of those that the results depend on; tracing leaves in what nothing uses.
    """

    def __init__(self, jaxpr: Jaxpr):
        self.eqns, self.results = jaxpr.eqns, variables(jaxpr.outvars)
        self.made_by = {var: number for number, eqn in enumerate(jaxpr.eqns) for var in eqn.outvars}
        self.read_by: dict[Any, list[int]] = defaultdict(list)
        for number, eqn in enumerate(jaxpr.eqns):
            for var in variables(eqn.invars):
                self.read_by[var].append(number)
        self.elementwise = {number for number, eqn in enumerate(jaxpr.eqns) if _is_elementwise(eqn)}
        self.needed = self.past({self.made_by[var] for var in self.results if var in self.made_by})

    def past(self, numbers: Collection[int], through: Collection[int] | None = None) -> set[int]:
        """These equations and all before them, or those of them that can be reached `through` such as are given."""
        seen, waiting = set(numbers), list(numbers)
        while waiting:
            for var in variables(self.eqns[waiting.pop()].invars):
                number = self.made_by.get(var)
                if number is not None and number not in seen and (through is None or number in through):
                    seen.add(number)
                    waiting.append(number)
        return seen

    def inputs(self, numbers: Collection[int]) -> list[Any]:
        """What these equations read and do not make, in order."""
        read = (var for number in sorted(numbers) for var in variables(self.eqns[number].invars))
        return list(dict.fromkeys(var for var in read if self.made_by.get(var) not in numbers))


def variables(atoms: Sequence[Any]) -> list[Any]:
    """Those that are no literals."""
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def aval(atom: Any) -> Any:
    """Shape and type of a variable or literal."""
    return atom.aval


def power(eqn: JaxprEqn) -> int:
    """Of an `integer_pow`; else 0."""
    return eqn.params["y"] if eqn.primitive.name == "integer_pow" else 0


def _elementwise(graph: _Graph) -> list[list[int]]:
    """The elementwise equations that make results of the jaxpr, those together that can be computed so."""
    level = _levels(graph)
    group_of: dict[Any, set[int]] = {}
    for number, eqn in enumerate(graph.eqns):
        (out, *_) = eqn.outvars or [None]
        if out in level:
            neighbours = [group_of[var] for var in variables(eqn.invars) if level.get(var) == level[out]]
            group = {number}.union(*neighbours)
            group_of |= {graph.eqns[n].outvars[0]: group for n in group}
    makers = [group_of[var] for var in graph.results if var in group_of]
    return [sorted(group) for group in {id(group): group for group in makers}.values()]


def _levels(graph: _Graph) -> dict[Any, int]:
    """For what elementwise equations make: how often its past has left such equations.

    Neighbours of one level can be computed together. What leaves them and comes back, such as a norm that gradients are
    clipped by, is of a higher level. What only higher ones use is computed with them.
    """
    past: dict[Any, int] = defaultdict(int)
    level: dict[Any, int] = {}
    for number, eqn in enumerate(graph.eqns):
        inputs, is_elementwise = variables(eqn.invars), number in graph.elementwise
        its_level = max((past[var] + (var in level and not is_elementwise) for var in inputs), default=0)
        past.update(dict.fromkeys(eqn.outvars, its_level))
        level.update(dict.fromkeys(eqn.outvars, its_level) if is_elementwise else {})
    for var in reversed(level):
        levels = {level.get(out, -1) for number in graph.read_by[var] for out in graph.eqns[number].outvars or [None]}
        if len(levels) == 1 and levels != {-1}:
            (level[var],) = levels
    return level


def _is_elementwise(eqn: JaxprEqn) -> bool:
    shape = aval(eqn.outvars[0]).shape if len(eqn.outvars) == 1 else ()
    if math.prod(shape) < LEAST:
        return False
    avals = [aval(atom) for atom in (*eqn.invars, *eqn.outvars)]
    is_float = all(one.dtype == jnp.float32 and one.shape in ((), shape) for one in avals)
    return is_float and (eqn.primitive.name in OPERATIONS or eqn.primitive.name in SAME or power(eqn) in (1, 2, 3))


def _with_sums_and_product(graph: _Graph, elementwise: list[int], before: Collection[int]) -> Group:
    """The group with its product, and with sums that no group waits for or has (`before`)."""
    shape = aval(graph.eqns[elementwise[0]].outvars[0]).shape
    members, sums = set(elementwise), []
    for number, terms in _possible_sums(graph, members, shape, before):
        members |= terms
        sums.append(number)
    found = (_product(graph, var, members, shape) for var in graph.inputs(members))
    product, equations = next((one for one in found if one), (None, []))
    return Group(sorted(members), sums, product, equations, [])


def _other_readers(graph: _Graph, group: Group, grouped: Collection[int]) -> list[Any]:
    """What others, which wait for no group, make of the arrays that a group reads: a product with a kernel, say."""
    waiting = [var for var in graph.inputs(set(group.all)) if aval(var).shape]
    made = {}
    while waiting:
        for number in graph.read_by[waiting.pop()]:
            eqn = graph.eqns[number]
            if eqn.primitive.name in VIEWS:
                waiting += eqn.outvars
            elif number in graph.needed and not graph.past([number]) & set(grouped):
                made[number] = eqn.outvars[0]
    return [made[number] for number in sorted(made)]


def _possible_sums(
    graph: _Graph, members: set[int], shape: tuple[int, ...], before: Collection[int]
) -> Iterator[tuple[int, set[int]]]:
    """Sums over all of what the members read or make, each with the equations that make its terms."""
    known = set(graph.inputs(members))
    elementwise = {n for n in graph.elementwise if aval(graph.eqns[n].outvars[0]).shape == shape}
    for number in sorted(graph.needed - set(before)):
        eqn = graph.eqns[number]
        if eqn.primitive.name != "reduce_sum" or aval(eqn.invars[0]).shape != shape:
            continue
        if aval(eqn.outvars[0]).shape or aval(eqn.outvars[0]).dtype != jnp.float32:
            continue
        (summed,) = variables(eqn.invars)
        maker = graph.made_by.get(summed)
        terms = graph.past([maker], elementwise) if maker in elementwise else set()
        if (terms - members) & set(before):
            continue
        inputs = graph.inputs(terms - members) if terms else [summed]
        others = [var for var in inputs if var not in known and graph.made_by.get(var) not in members]
        its_past = graph.past([made for var in others if (made := graph.made_by.get(var)) is not None])
        if all(aval(var).shape == () for var in others) and not its_past & members:
            yield number, terms


def _product(graph: _Graph, var: Any, members: set[int], shape: tuple[int, ...]) -> tuple[Product, list[int]] | None:
    """The product that a variable is, and the equations that make it."""
    number, made, numbers, is_transposed = graph.made_by.get(var), var, [], False
    if number is not None and graph.eqns[number].primitive.name == "transpose":
        numbers, is_transposed = [number], True
        (made,) = variables(graph.eqns[number].invars)
        number = graph.made_by.get(made)
    if number is None or graph.eqns[number].primitive.name != "dot_general" or len(shape) != 2:
        return None
    readers = [n for one in dict.fromkeys((var, made)) for n in graph.read_by[one]]
    eqn, is_result = graph.eqns[number], var in graph.results or made in graph.results
    if is_result or not set(readers) <= members | set(numbers):
        return None
    (axes, batch), matrices = eqn.params["dimension_numbers"], [aval(atom) for atom in eqn.invars]
    is_plain = all(one.ndim == 2 and one.dtype == jnp.float32 for one in matrices)
    if not is_plain or any(batch) or eqn.params["precision"] is not None or len(axes[0]) != 1:
        return None
    summed = matrices[0].shape[axes[0][0]]
    if summed > MOST_SUMMED or shape[1] < LEAST_COLUMNS:
        return None
    sides = list(zip(eqn.invars, (axes[0][0], axes[1][0]), strict=True))
    (x, x_axis), (d, d_axis) = reversed(sides) if is_transposed else sides
    return Product(x, d, x_axis, d_axis, var), [*numbers, number]
