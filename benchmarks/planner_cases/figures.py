"""What the adapters share: figures of a case, how exactly they are printed, and formulas that are printed as text."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from planner_cases.answer import Case, Comparison, UnansweredError

EXACT = 1e-9
"""For figures with all the digits of a double."""
ROUND_FROM = 1e6
"""From here on the zeros at the end of a number are taken for filling: 16,550,000,000,000 is 16.55 trillion."""


def printed_tolerance(value: float) -> float:
    """Half a unit of the last printed digit, as a share of the value."""
    if value == 0:
        return EXACT
    mantissa, _, exponent = repr(value).lower().partition("e")
    digits = mantissa.replace("-", "")
    whole, _, decimals = digits.partition(".")
    decimals = decimals.rstrip("0")
    unit = 10.0 ** (int(exponent or 0) - len(decimals))
    if not decimals and abs(value) >= ROUND_FROM:
        unit *= 10.0 ** (len(whole) - len(whole.rstrip("0")))
    # 0.501: a figure that lies on the border may have been rounded from a neighbour of a double.
    return max(0.501 * unit / abs(value), EXACT)


def compare(case: Case, key: str, found: float, *, where: str = "published", exact: bool = False) -> Comparison:
    """One figure, right within the case's tolerance where it has one, else within its printed digits."""
    expected, tolerance = case[where][key], case.get("tolerance")
    if exact or not isinstance(tolerance, int | float):
        tolerance = printed_tolerance(expected)
    return Comparison(f"{where}.{key}", expected, found, tolerance)


def numbers(case: Case) -> Iterator[tuple[str, str, float]]:
    """(published or derived, key, value) of every figure of a case that is a number."""
    for where in ("published", "derived"):
        for key, value in case.get(where, {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield where, key, value


def compare_all(case: Case, figures: Mapping[str, float]) -> list[Comparison]:
    """The figures of a case that are in `figures`; UnansweredError where none is."""
    found = [compare(case, key, figures[key], where=where) for where, key, _ in numbers(case) if key in figures]
    if not found:
        raise UnansweredError(f"no function gives {', '.join(key for _, key, _ in numbers(case)) or 'its text'}")
    return found


def first(values: Mapping[str, Any], names: Iterable[str]) -> float | None:
    """The first of some names of one quantity that is there as a number."""
    return next((values[name] for name in names if isinstance(values.get(name), int | float)), None)


_OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Any] = {
    "round": round,
    "log2": math.log2,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "arange": np.arange,
    "linspace": np.linspace,
}


def evaluate(formula: str, names: Mapping[str, float] | None = None) -> Any:
    """The value of a printed formula; words behind it, in brackets or after a comma, are left out.

    UnansweredError for anything but numbers, names that are given, arithmetic and a few functions.
    """
    try:
        return _value(ast.parse(_arithmetic(formula), mode="eval").body, names or {})
    except (SyntaxError, KeyError) as error:
        raise UnansweredError(f"the formula {formula!r} cannot be read") from error


def _arithmetic(text: str) -> str:
    """The longest beginning, up to a space or comma, that is an expression."""
    ends = [len(text), *(index for index in range(len(text) - 1, 0, -1) if text[index] in " ,")]
    for end in ends:
        try:
            body = ast.parse(text[:end], mode="eval").body
        except SyntaxError:
            continue
        if not isinstance(body, ast.Tuple):
            return text[:end]
    return text


def _value(node: ast.AST, names: Mapping[str, float]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.Name(id=name):
            return names[name]
        case ast.BinOp(left=left, op=sign, right=right):
            return _OPERATORS[type(sign)](_value(left, names), _value(right, names))
        case ast.UnaryOp(op=sign, operand=operand):
            return _OPERATORS[type(sign)](_value(operand, names))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _FUNCTIONS[name](*(_value(argument, names) for argument in arguments))
    raise KeyError(ast.dump(node))
