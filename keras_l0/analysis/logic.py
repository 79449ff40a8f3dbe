"""Boolean algebra on zeros and ones, for NumPy arrays and symbols alike.

Between 0 and 1, which is for symbols, the operations are their multilinear relaxation:
the probability of the formula if its terms were independent. That is what makes one
analysis both the exact size of a stripped model and a differentiable expected size.
Terms that share an event, such as the gate of all branches of a residual stream, are
not independent; symbols know their events (`keras_l0.analysis.events`), which numbers
do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_l0.analysis.symbolic import symbolic
from keras_l0.analysis.symbols import Symbol


def namespace(*arrays: Any) -> Any:
    """`numpy` if all arrays are NumPy's, else `keras.ops`; `symbolic` for symbols."""
    if any(isinstance(a, Symbol) for a in arrays):
        return symbolic
    return np if all(isinstance(a, (np.ndarray, np.generic)) for a in arrays) else ops


def and_(a: Any, b: Any) -> Any:
    """Both; an event asked for twice is one (counts are what ``*`` multiplies)."""
    if namespace(a, b) is symbolic:
        return symbolic.both(a, b)
    return a * b


def or_(a: Any, b: Any) -> Any:
    """Either; what both ask for is one event, not two independent ones."""
    if a is b:
        return a
    if namespace(a, b) is symbolic:
        return symbolic.union(a, b)
    return a + b - a * b


def not_(a: Any) -> Any:
    """The opposite."""
    return 1.0 - a


def any_(a: Any) -> Any:
    """Whether any element is true, of shape (1,)."""
    xp = namespace(a)
    return symbolic.any(a) if xp is symbolic else 1.0 - xp.prod(1.0 - a, keepdims=True)


def rows_any(a: Any, rows: int) -> Any:
    """Whether any element is true, for each of equally many elements in a row."""
    xp = namespace(a)
    if xp is symbolic:
        return symbolic.rows_any(a, rows)
    return 1.0 - xp.prod(1.0 - xp.reshape(a, (rows, -1)), axis=1)


def group_any(a: Any, groups: np.ndarray, count: int) -> Any:
    """For each group the largest of its elements, an idempotent "or".

    Args:
        a: Values, shape (n,).
        groups: Group of each element, integers in [0, count), shape (n,).
        count: Number of groups.
    """
    if isinstance(a, Symbol):
        return symbolic.group_any(a, groups, count)
    result = np.zeros(count, a.dtype)
    np.maximum.at(result, groups, a)
    return result


def count(a: Any) -> Any:
    """How many elements are true: their sum, a scalar."""
    return namespace(a).sum(a)


def take(a: Any, indices: np.ndarray) -> Any:
    """The elements at ``indices``."""
    return namespace(a).take(a, indices, axis=0)


def largest(a: Any, b: Any) -> Any:
    """The larger of two scalars."""
    if isinstance(a, float) and isinstance(b, float):
        return max(a, b)
    return namespace(a, b).maximum(a, b)


def concatenate(parts: list[Any]) -> Any:
    """Vectors end to end."""
    return namespace(*parts).concatenate(parts)


def first(a: Any) -> Any:
    """The first true element alone."""
    xp = namespace(a)
    if xp is symbolic:
        return symbolic.first(a)
    before = xp.cumsum(a) - a
    return a * xp.clip(1.0 - before, 0.0, 1.0)


def like(reference: Any, value: float, size: int) -> Any:
    """A constant vector in the reference's namespace and dtype."""
    return array_like(reference, np.full(size, value))


def ones_like(reference: Any) -> Any:
    """As many ones, in the reference's namespace and dtype."""
    return like(reference, 1.0, reference.shape[0])


def array_like(reference: Any, values: np.ndarray) -> Any:
    """NumPy numbers or booleans in the reference's namespace and dtype."""
    values = values.astype("float64")
    if isinstance(reference, (np.ndarray, np.generic, Symbol)):
        return values.astype(reference.dtype)
    return ops.convert_to_tensor(values, dtype=reference.dtype)
