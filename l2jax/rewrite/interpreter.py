"""Any JAX function, evaluated equation by equation, with some of its equations replaced.

JAX traces a function to a jaxpr: a list of equations, each a primitive with inputs, outputs and parameters. Here each
is bound again as it was, unless there is a rule for its primitive, or a pattern that ends with it. Equations that hold
jaxprs themselves, such as `jit`, `scan`, `cond` and `checkpoint`, are rewritten inside. What has no rule stays as it
is.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

Rule = Callable[..., Array | None]
"""(inputs of the equation, **its parameters) to its output; None leaves it as it is."""


class Made(NamedTuple):
    """What is known where an equation is evaluated.

    Attributes:
      by: the equation that made a variable.
      uses: how often a variable is used.
      value: of a variable or literal.
    """

    by: Mapping[Any, JaxprEqn]
    uses: Mapping[Any, int]
    value: Callable[[Any], Any]

    def equation(self, atom: Any) -> JaxprEqn | None:
        """The equation that made a variable; None for literals and arguments."""
        return None if isinstance(atom, Literal) else self.by.get(atom)

    def only_for(self, atom: Any) -> JaxprEqn | None:
        """The same, if nothing else uses what it made."""
        return None if isinstance(atom, Literal) or self.uses[atom] > 1 else self.by.get(atom)


Pattern = Callable[[JaxprEqn, Made], Array | None]
"""(the last equation of the pattern, what was made before) to its output; None where the pattern does not match."""


class Rules(NamedTuple):
    """What to replace, by name of the primitive.

    Attributes:
      primitives: one equation at a time.
      patterns: several, by the last of them. They are tried first. The equations before the last are evaluated too, but
        as nothing uses their outputs then, the compiler leaves them out.
    """

    primitives: Mapping[str, Rule]
    patterns: Mapping[str, Pattern] = {}


def rewrite(f: Callable, rules: Rules) -> Callable:
    """The function of trees of arrays with the rules applied. It has gradients if the rules' functions have them."""

    @functools.wraps(f)
    def rewritten(*args: Any) -> Any:
        closed, out = jax.make_jaxpr(f, return_shape=True)(*args)
        return jax.tree.unflatten(jax.tree.structure(out), _evaluate(rules, closed, jax.tree.leaves(args)))

    return rewritten


def _evaluate(rules: Rules, closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args), strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    uses = Counter(
        atom
        for atoms in (*(eqn.invars for eqn in jaxpr.eqns), jaxpr.outvars)
        for atom in atoms
        if not isinstance(atom, Literal)
    )
    made = Made({var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}, uses, value)
    for eqn in jaxpr.eqns:
        with placed(eqn):
            is_concerned = _is_concerned(rules, eqn)
            outs = _evaluate_equation(rules, eqn, made) if is_concerned else bind(eqn, *map(value, eqn.invars))
        values.update(zip(eqn.outvars, outs, strict=True))
    return list(map(value, jaxpr.outvars))


def _evaluate_equation(rules: Rules, eqn: JaxprEqn, made: Made) -> Sequence[Any]:
    args, name, params = [made.value(atom) for atom in eqn.invars], eqn.primitive.name, eqn.params
    if name in rules.patterns and (out := rules.patterns[name](eqn, made)) is not None:
        return [out]
    if name in rules.primitives and (out := rules.primitives[name](*args, **params)) is not None:
        return [out]
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return _CUSTOM[name](rules, eqn)(*args)
    if name in ("jit", "pjit", "closed_call", "core_call"):
        return _evaluate(rules, _closed(params["jaxpr" if "jaxpr" in params else "call_jaxpr"]), args)
    return bind(eqn, *args, **{name: _rewritten(rules, param) for name, param in params.items()})


@contextlib.contextmanager
def placed(eqn: JaxprEqn) -> Iterator[None]:
    """Errors, profiles and compiled programs name the line of the network that an equation comes from."""
    name_stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
    with source_info_util.user_context(eqn.source_info.traceback, name_stack=name_stack), eqn.ctx.manager:
        yield


def bind(eqn: JaxprEqn, *args: Any, **params: Any) -> Sequence[Any]:
    """The outputs of an equation as it is, or with other parameters."""
    out = eqn.primitive.bind(*args, **eqn.primitive.get_bind_params(eqn.params | params))
    return out if eqn.primitive.multiple_results else [out]


def _custom_jvp(rules: Rules, eqn: JaxprEqn) -> Callable:
    """The function with its own rule of differentiation, which stays as it is: rules need not have tangents."""
    f = jax.custom_jvp(lambda *args: _evaluate(rules, _closed(eqn.params["call_jaxpr"]), args))
    f.defjvp(lambda args, tangents: jax.jvp(functools.partial(bind, eqn), args, tangents))
    return f


def _custom_vjp(rules: Rules, eqn: JaxprEqn) -> Callable:
    f = jax.custom_vjp(lambda *args: _evaluate(rules, _closed(eqn.params["call_jaxpr"]), args))
    forward = rewrite(lambda *args: jax.vjp(functools.partial(bind, eqn), *args), rules)
    f.defvjp(forward, rewrite(lambda backward, d_outs: backward(d_outs), rules))
    return f


_CUSTOM = {"custom_jvp_call": _custom_jvp, "custom_vjp_call": _custom_vjp}


def _rewritten(rules: Rules, param: Any) -> Any:
    """A parameter of an equation, with the jaxprs in it rewritten."""
    if not any(True for _ in _jaxprs(param)):
        return param
    if isinstance(param, tuple | list):
        return type(param)(_rewritten(rules, one) for one in param)
    closed = _closed(param)
    avals = [
        jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype, weak_type=var.aval.weak_type)
        for var in closed.jaxpr.invars
    ]
    new = jax.make_jaxpr(lambda *args: _evaluate(rules, closed, args))(*avals)
    if isinstance(param, ClosedJaxpr):
        return new
    assert not new.consts  # a jaxpr that is not closed has no place for them
    return new.jaxpr


def _is_concerned(rules: Rules, eqn: JaxprEqn) -> bool:
    """Whether a rule is about the equation, or about one inside it."""
    name = eqn.primitive.name
    inner = (one for param in eqn.params.values() for jaxpr in _jaxprs(param) for one in jaxpr.eqns)
    return name in rules.primitives or name in rules.patterns or any(_is_concerned(rules, one) for one in inner)


def _jaxprs(param: Any) -> Iterator[Jaxpr]:
    if isinstance(param, tuple | list):
        for one in param:
            yield from _jaxprs(one)
    elif isinstance(param, Jaxpr | ClosedJaxpr):
        yield _closed(param).jaxpr


def _closed(jaxpr: Jaxpr | ClosedJaxpr) -> ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())
