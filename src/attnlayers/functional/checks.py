"""One checker for every argument of the library: library, device, dtype, rank and axes."""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from attnbackends import Array, Backend, backend_of

from .dtypes import is_dtype

_KINDS = {"float": "real floating", "int": "integral", "bool": "bool"}
_WORDS = {"float": "floating point", "int": "integers", "bool": "boolean"}


def check(**arguments: tuple[Array | None, str]) -> Backend:
    """Hold arguments against what they must be; an axis that several name must have one length.

    Parameters
    ----------
    **arguments : (array or None, str)
        Each argument under its own name, with its axes: ``"N T H"``. A leading ``...`` stands for further axes
        that must be the same wherever it stands, a leading ``*`` for any further axes, a trailing ``: int`` or
        ``: bool`` for another dtype than floating point. None is an optional argument that was left out.

    Returns
    -------
    Backend
        The one that all arguments belong to.

    Raises
    ------
    TypeError
        For what is no array, or has another dtype than it must; all floating point arguments share one.
    ValueError
        For another rank or length of an axis.
    BackendError
        If the arguments live in more than one library or device.
    """
    arrays, given = {}, []
    for name, (array, spec) in arguments.items():
        if array is not None:
            arrays[name] = array
            given.append((name, spec, getattr(array, "shape", None), getattr(array, "dtype", None)))
    backend = backend_of(**arrays)
    _hold(backend, tuple(given))
    return backend


Described = tuple[tuple[str, str, tuple[int, ...], Any], ...]


@lru_cache(maxsize=1024)
def _hold(backend: Backend, given: Described) -> None:
    """What `check` does, of arguments by name: axes, shape and dtype. What fits is remembered, errors are not."""
    sizes: dict[str, int | tuple[int, ...]] = {}
    first_float: tuple[str, Any] | None = None
    for name, spec, shape, dtype in given:
        axes, kind = _parse(spec)
        if kind != "float" or first_float is None or dtype != first_float[1]:
            if not is_dtype(backend, dtype, _KINDS[kind]):
                raise TypeError(f"`{name}` must be {_WORDS[kind]}, got {dtype}: convert it with xp.astype")
            if kind == "float" and first_float is not None:
                raise TypeError(
                    f"`{name}` must have the dtype of {first_float[0]}, {first_float[1]}, got {dtype}: "
                    "convert one of them with xp.astype"
                )
            if kind == "float":
                first_float = (name, dtype)
        found = _match(shape, axes)
        if found is None:
            raise ValueError(_message(name, axes, sizes, given))
        for axis, n in found.items():
            if sizes.setdefault(axis, n) != n:
                raise ValueError(_message(name, axes, sizes, given))


def check_gradient(name: str, gradient: Array, *, like: Array) -> None:
    """Hold an incoming gradient against the array that it belongs to: library, device, dtype and shape."""
    check(**{"the output": (like, "*"), name: (gradient, "*")})
    if tuple(gradient.shape) != tuple(like.shape):
        raise ValueError(
            f"`{name}` must have the shape of the output, {tuple(like.shape)}, got {tuple(gradient.shape)}"
        )


def broadcasts(given: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Whether an array of a shape broadcasts to another shape and to no larger one."""
    return len(given) <= len(full) and all(n in (1, m) for n, m in zip(given[::-1], full[::-1], strict=False))


@cache
def _parse(spec: str) -> tuple[tuple[str, ...], str]:
    """``"... T H: int"`` -> (("...", "T", "H"), "int")."""
    axes, _, kind = spec.partition(":")
    return tuple(axes.split()), kind.strip() or "float"


def _match(shape: tuple[int, ...], axes: tuple[str, ...]) -> dict[str, int | tuple[int, ...]] | None:
    """The lengths of the named axes, or None where the rank is another."""
    if axes[:1] not in (("...",), ("*",)):
        return dict(zip(axes, shape, strict=True)) if len(shape) == len(axes) else None
    named = axes[1:]
    if len(shape) < len(named):
        return None
    split = len(shape) - len(named)
    found: dict[str, int | tuple[int, ...]] = dict(zip(named, shape[split:], strict=True))
    if axes[0] == "...":
        found["..."] = shape[:split]
    return found


def _message(name: str, axes: tuple[str, ...], sizes: dict[str, int | tuple[int, ...]], given: Described) -> str:
    wanted, shapes = _tuple(axes), {other: tuple(shape) for other, _, shape, _ in given}  # libraries print their own
    shape, before = shapes[name], given[: [*shapes].index(name)]
    partners = [(other, shapes[other]) for other, spec, *_ in before if set(_parse(spec)[0]) & set(axes) - {"*"}]
    if not partners:
        return f"`{name}` must have shape {wanted}, got {shape}"
    known: list[object] = []
    for axis in axes:
        size = sizes.get(axis, axis)
        known.extend(size if isinstance(size, tuple) else [size])
    beside = ", ".join(f"{other} {theirs}" for other, theirs in partners)
    return f"`{name}` must have shape {wanted} = {_tuple(known)} to go with {beside}, got {shape}"


def _tuple(items: Sequence[object]) -> str:
    return f"({', '.join(str(item) for item in items)}{',' * (len(items) == 1)})"
