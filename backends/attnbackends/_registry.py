"""Which backends there are, which can be used here, and which one an array belongs to."""

import copyreg
import os
from functools import cache
from importlib import import_module
from typing import NamedTuple

from ._base import Array, Backend
from ._errors import BackendError
from ._select import select

GROUP = "attnlayers.backends"
# Registered as any plug-in is (pyproject.toml); repeated here because reading the metadata of all installed
# packages takes a third of the time of `import numpy`, and these two need it not.
_BUILT_IN = {"numpy": "attnbackends._cpu.backend:NumpyBackend", "cupy": "attnbackends._cuda.backend:CupyBackend"}

# Kinds of array that give operators another meaning, by the name of their class, with what to pass instead.
_OTHER_ARRAYS = {
    "MaskedArray": "`.filled(...)` of it, and what it leaves out as a boolean mask where there is such an argument",
    "MaskedTensor": "`.to_tensor(...)` of it, and what it leaves out as a boolean mask where there is such an argument",
    "matrix": "`numpy.asarray(...)` of it",
}

_loaded: dict[str, Backend] = {}
_of_type: dict[type, Backend] = {}


@cache
def _known() -> dict[str, str]:
    """Name -> ``module:class`` of every backend that is built in or installed."""
    from importlib.metadata import entry_points

    return _BUILT_IN | {entry.name: entry.value for entry in entry_points(group=GROUP)}


def get_backend(name: str) -> Backend:
    """The backend of that name; it is made at the first call.

    Parameters
    ----------
    name : str
        ``"numpy"``, ``"cupy"`` or the name of an entry point in the group ``attnlayers.backends``.

    Raises
    ------
    BackendError
        If there is none of that name, or it cannot be used here: the message has the cause.
    """
    if name not in _loaded:
        target = _BUILT_IN.get(name) or _known().get(name)
        if target is None:
            raise BackendError(f"there is no backend {name!r}; installed are {', '.join(sorted(_known()))}")
        module, _, attribute = target.partition(":")
        try:
            backend = getattr(import_module(module), attribute)()
        except BackendError:
            raise
        except Exception as error:  # a plug-in may fail in any way; its name must not get lost
            raise BackendError(
                f"the backend {name!r} ({target}) cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(backend, Backend):
            raise BackendError(f"the backend {name!r} ({target}) is no attnbackends.Backend but {backend!r}")
        _loaded[name] = backend
        # One of a kind: a copy, or what is unpickled, is the one of its name.
        copyreg.pickle(type(backend), lambda known: (get_backend, (known.name,)))
    return _loaded[name]


class Availability(NamedTuple):
    """Whether a backend can be used here.

    Attributes
    ----------
    usable : bool
    detail : str
        What it would run on or, where it cannot be used, why and what to do.
    """

    usable: bool
    detail: str


def available_backends() -> dict[str, Availability]:
    """Try every backend that is known here; nothing is allocated on a device.

    Returns
    -------
    dict of str to Availability
    """
    found = {}
    for name in _known():
        try:
            described = get_backend(name).machine.describe()
            found[name] = Availability(True, f"{described['library']} on {described['device']}")
        except BackendError as error:
            found[name] = Availability(False, str(error))
    return found


def backend_of(*arrays: Array, **named: Array) -> Backend:
    """The backend that the arguments belong to.

    Parameters
    ----------
    *arrays, **named : array
        The keywords are the names that an error gives to the arguments.

    Raises
    ------
    TypeError
        If an argument is no array of a known library, or of a kind that would be computed with in another way than
        it says: masked arrays, matrices.
    BackendError
        If the arguments belong to more than one library or live on more than one device, or on a device of CuPy
        that is not the current one.
    """
    values = (*arrays, *named.values())
    if values and (found := _of_type.get(type(values[0]))) is not None:  # the usual case, in a small layer's time
        kind = type(values[0])
        for value in values:
            if type(value) is not kind:
                break
        else:
            if found._are_here(values):
                return found
    arguments = {f"argument {i}": array for i, array in enumerate(arrays, 1)} | named
    if not arguments:
        raise TypeError("backend_of needs at least one array")
    backends = {name: _backend_of_type(name, type(array)) for name, array in arguments.items()}
    first, *others = backends.values()
    if all(other is first for other in others) and first._are_here(values):
        return first
    places = [f"`{name}` is a {backends[name].name} array on {array.device}" for name, array in arguments.items()]
    raise BackendError(f"the arrays of one call must live in one place: {', '.join(places)}; move them with asarray")


def _backend_of_type(argument: str, kind: type) -> Backend:
    backend = _of_type.get(kind)
    if backend is None:
        roots = [base.__module__.partition(".")[0] for base in kind.__mro__]
        name = next((root for root in roots if root in _loaded or root in _known()), None)
        if name is None:
            raise TypeError(
                f"`{argument}` must be an array of {' or '.join(sorted(_known()))}, got {kind.__name__}: "
                "make one with attnbackends.backend.asarray"
            )
        for base in kind.__mro__:
            if base.__name__ in _OTHER_ARRAYS and base.__module__.partition(".")[0] == name:
                raise TypeError(
                    f"`{argument}` must be a plain array, got {kind.__name__}: pass {_OTHER_ARRAYS[base.__name__]}"
                )
        backend = _of_type[kind] = get_backend(name)
    return backend


def chosen_backend() -> tuple[Backend, str]:
    """The backend that the environment asks for, and the setting that led to it."""
    selection = select(os.environ)
    *hopes, last = selection.candidates
    for name in hopes:
        try:
            return get_backend(name), selection.reason
        except BackendError as error:
            import logging

            logging.getLogger("attnbackends").info("%s: using %s, because %s", selection.reason, last, error)
    try:
        return get_backend(last), selection.reason
    except BackendError as error:
        raise BackendError(f"{selection.reason}: {error}") from error.__cause__
