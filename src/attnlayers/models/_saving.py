"""Any layer to a file and back: its parameters, and what it is made with."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np

import attnbackends
from attnbackends import Backend

from .. import layers
from .._files import write_whole
from ..layers import Initializer, Layer
from ._stored import Stored, TensorFiles, Unset, WeightsError, check, fill, import_safetensors

FORMAT = "attnlayers layer 1"


def save(layer: Layer, path: str | Path) -> None:
    """Write a layer or a model to a safetensors file.

    Parameters
    ----------
    layer : Layer
        Its parameters are written under their names, in their dtype; and as metadata its class and what it was made
        with, from which `load` makes it again. The states of recurrent layers are no parameters.
    path : path
        Replaced as a whole, or untouched.

    Raises
    ------
    FileError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import attnlayers
    >>> path = tempfile.mkdtemp() + "/norm.safetensors"
    >>> attnlayers.save(attnlayers.RMSNorm.create(3), path)
    >>> attnlayers.load(path)
    RMSNorm(epsilon=1e-06, gain (3,))
    """
    safetensors = import_safetensors()
    arrays = {entry.name: entry.read() for entry in _stored(layer)}
    metadata = {"format": FORMAT, "layer": json.dumps(_description(layer))}
    content = safetensors.numpy.save(arrays, metadata)
    write_whole(Path(path), lambda aside: aside.write_bytes(content))


def load(path: str | Path, layer: Layer | None = None, *, backend: Backend | None = None) -> Layer:
    """Read what `save` wrote.

    Parameters
    ----------
    path : path
    layer : Layer, optional
        Overwrite the parameters of this one. Without it, the layer is made again from the metadata; that goes for
        classes of this library, and nothing in the file is executed.
    backend : Backend, optional
        Where the parameters of a layer that is made live. Default: the one that the environment chose.

    Returns
    -------
    Layer
        `layer`, where it was given.

    Raises
    ------
    WeightsError
        If the file is damaged or another program's; if names, shapes or dtypes differ from those of the layer, which
        is untouched then; if the layer cannot be made from it.
    """
    files = TensorFiles(path)
    if layer is None:
        layer = _made(files, str(path), backend or attnbackends.backend)
    elif backend is not None:
        raise ValueError("`backend` says where a new layer lives: leave it out where a layer is given")
    entries = _stored(layer)
    check(entries, files.shapes, where=str(path))
    for entry in entries:
        own = str(entry.params[0].dtype).rpartition(".")[2]
        if files.dtypes[entry.name] != own:
            raise WeightsError(
                f"{path}: `{entry.name}` is in {files.dtypes[entry.name]}, got a layer in {own}: make that in the "
                "dtype of the file"
            )
    fill(entries, files)
    return layer


def _names(layer: Layer) -> tuple[str, ...]:
    if len(layer.names) == len(layer.params):
        return layer.names
    return tuple(f"param{i}" for i in range(len(layer.params)))


def _stored(layer: Layer) -> list[Stored]:
    return [Stored(name, (param,)) for name, param in zip(_names(layer), layer.params, strict=True)]


# -- what a layer is made with, as JSON


def _description(layer: Layer) -> dict[str, Any]:
    """The class, and the arguments of its constructor as they are now; of arrays the shapes.

    What an attribute of the same name says goes before what the constructor was given: it may have been changed.
    """
    args, options = layer._made_with
    bound = inspect.signature(type(layer).__init__).bind(layer, *args, **options)
    bound.apply_defaults()
    _, *parameters = bound.signature.parameters.values()
    given: dict[str, Any] = {"class": type(layer).__name__, "args": [], "options": {}}
    if type(layer) is not _classes().get(type(layer).__name__):
        given["class"] = f"{type(layer).__module__}.{type(layer).__qualname__}"
    for parameter in parameters:
        value = bound.arguments[parameter.name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            given["args"] += [_encoded(one) for one in value]
        elif parameter.kind is parameter.VAR_KEYWORD:
            given["options"] |= {name: _encoded(one) for name, one in value.items()}
        else:
            now = getattr(layer, parameter.name, value)
            value = now if isinstance(value, int | float | str | None) and isinstance(now, int | float | str) else value
            given["options"][parameter.name] = _encoded(value)
    return given


def _encoded(value: Any) -> Any:
    if isinstance(value, Layer):
        return {"layer": _description(value)}
    if isinstance(value, Initializer):
        return {"initial": str(np.dtype(value.dtype)) if value.backend.on_host else str(value.dtype)}
    if isinstance(value, Backend):
        return {"backend": None}
    if isinstance(value, type):
        return {"type": value.__name__}
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return {"array": list(value.shape)}
    if isinstance(value, list | tuple):
        return [_encoded(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"unknown": type(value).__name__}


def _made(files: TensorFiles, path: str, backend: Backend) -> Layer:
    """A layer from metadata; its parameters hold anything."""
    if files.metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} was not written by attnlayers.save, got format {files.metadata.get('format')!r}: make the layer, "
            "and give it as `layer`"
        )

    dtype = next(iter(files.dtypes.values()), "float32")

    def decoded(value: Any) -> Any:
        match value:
            case {"array": [*shape], **rest} if not rest:
                return Unset(0, dtype, backend).full(0, *shape)
            case {"layer": dict(inner), **rest} if not rest:
                return made(inner)
            case {"initial": str(own), **rest} if not rest:
                return Unset(0, own, backend)
            case {"backend": None, **rest} if not rest:
                return backend
            case {"type": str(name), **rest} if not rest and name in _classes():
                return _classes()[name]
            case list():
                return tuple(decoded(one) for one in value)
            case None | bool() | int() | float() | str():
                return value
        raise ValueError(f"{value!r} is nothing that a layer is made with")

    def made(description: dict[str, Any]) -> Layer:
        match description:
            case {"class": str(name), "args": list(args), "options": dict(options)}:
                if name not in _classes():
                    raise WeightsError(
                        f"{path} holds a {name}, no class of this library: make it, and give it as `layer`"
                    )
                cls = _classes()[name]
                given = {key: decoded(value) for key, value in options.items()}
                first = [key for key in inspect.signature(cls).parameters if args and key in given]
                layer: Layer = cls(*(given.pop(key) for key in first), *map(decoded, args), **given)
                return layer
        raise ValueError("there is no class, or no arguments of it")

    try:
        return made(json.loads(files.metadata.get("layer", "")))
    except WeightsError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, MemoryError) as error:
        raise WeightsError(f"{path} does not say how to make its layer: {error}") from error


def _classes() -> dict[str, type[Any]]:
    """The layers and models of this library, by name."""
    from .. import models

    known = {name: getattr(home, name) for home in (layers, models) for name in home.__all__}
    return {name: cls for name, cls in known.items() if isinstance(cls, type) and issubclass(cls, Layer)}
