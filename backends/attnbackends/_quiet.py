"""Results where NumPy would report: overflow, underflow, division by zero and NaN go through the numbers alone."""

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

_is_quiet: ContextVar[bool] = ContextVar("attnbackends_is_quiet", default=False)
"""Set together with NumPy's own state, and copied with it to the threads that help."""


def quiet(function: F) -> F:
    """`function`, which neither warns nor raises where a number overflows, underflows or is none.

    It gives results under a caller's ``np.seterr(all="raise")`` as well, and leaves that as it was. Underflow to 0 is
    what softmax is made of; infinity and NaN are for the caller to look for in a result.

    Within another such function a call costs a tenth of `numpy.errstate`, so that small calls pay for the outermost
    alone.
    """
    outermost = np.errstate(all="ignore")(function)

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if _is_quiet.get():
            return function(*args, **options)
        token = _is_quiet.set(True)
        try:
            return outermost(*args, **options)
        finally:
            _is_quiet.reset(token)

    return call  # type: ignore[return-value]
