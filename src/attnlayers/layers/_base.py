"""The protocol of every layer."""

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import isfunction, signature
from math import prod
from typing import Any

from attnbackends import Array, Backend, backend_of, quiet

NOTED = 4096
"""Elements up to which a layer keeps the gradient that it was given, for `explain`: 16 KB beside what forward saves."""


def _remembers(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that keeps its arguments: `save` writes them down, so that `load` can make the layer again."""

    @wraps(init)
    def make(self: Any, *args: Any, **options: Any) -> None:
        if "_made_with" not in vars(self):  # else a subclass was asked first
            self._made_with = args, options
        init(self, *args, **options)

    return make


class Layer:
    """Something with parameters, their gradients, and a forward that its backward can follow.

    Gradients are those of the call as it was made. What `forward` returned may be written to before `backward`, and so
    may masks, biases, lengths and positions that it was given. Inputs and parameters are large and not copied: those
    must stay as they are until `backward` is done.

    Attributes
    ----------
    params, grads : list of array
        Parallel. A gradient has its place in memory for good: `backward` writes into it.
    names : tuple of str
        What each parameter is called, for files and messages.
    """

    names: tuple[str, ...] = ()
    forward: Callable[..., Any]
    """Compute the output, and remember what `backward` needs; each layer has its own signature."""
    backward: Callable[..., Any]
    """From the gradient of the output to those of the inputs; writes those of the parameters."""
    _made_with: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
    _grads: list[Array] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Make all public methods `quiet` in the library's own layers; what others report is for them to say."""
        super().__init_subclass__(**options)
        for name, method in list(vars(cls).items()):
            if name == "__init__":
                setattr(cls, name, _remembers(method))
        if cls.__module__.partition(".")[0] == __name__.partition(".")[0]:
            for name, method in list(vars(cls).items()):
                if isfunction(method) and not name.startswith("_"):
                    setattr(cls, name, quiet(method))

    @_remembers
    def __init__(self, *params: Array) -> None:
        self.params: list[Array] = list(params)
        if params:
            backend_of(**dict(zip(self.names, params, strict=True)))
        self._saved: Any = None
        self._dout: Any = None

    @property
    def grads(self) -> list[Array]:
        """Gradients, which take memory from the first time on that they are asked for: inference never asks."""
        if self._grads is None:
            self._grads = self._new_grads()
        return self._grads

    @grads.setter
    def grads(self, grads: list[Array]) -> None:
        self._grads = grads

    def _new_grads(self) -> list[Array]:
        return [backend_of(param).xp.zeros_like(param) for param in self.params]

    @property
    def backend(self) -> Backend:
        """Where the parameters live."""
        return backend_of(*self.params)

    def saved(self) -> Any:
        """What `forward` remembered.

        Raises
        ------
        RuntimeError
            If there was no forward.
        """
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}.backward needs what forward saves: call forward first")
        return self._saved

    def _note(self, dout: Array) -> None:
        """Keep the gradient that `backward` was given for `explain`; of a large one, the shape."""
        shape = tuple(dout.shape)
        self._dout = dout if prod(shape) <= NOTED else shape

    def write_grads(self, *gradients: Array) -> None:
        """Put gradients where `grads` has them."""
        for grad, gradient in zip(self.grads, gradients, strict=True):
            grad[...] = gradient

    def __repr__(self) -> str:
        """Options, then shapes; a layer made of layers has them below each other."""
        inner: dict[str, Layer] = getattr(self, "layers", {})
        parts = [f"{name}={value!r}" for name, value in self._options()]
        if not inner:
            parts += [f"{name} {tuple(p.shape)}" for name, p in zip(self.names, self.params, strict=False)]
            return f"{type(self).__name__}({', '.join(parts)})"
        lines = [", ".join(parts)] if parts else []
        lines += [f"{name}: {layer!r}".replace("\n", "\n  ") for name, layer in inner.items()]
        return "\n  ".join([f"{type(self).__name__}(", *lines]) + "\n)"

    def _options(self) -> Iterator[tuple[str, Any]]:
        """What the layer was made with that is neither an array nor what it would be anyway."""
        for name, parameter in signature(type(self)).parameters.items():
            value = getattr(self, name, None)
            usual = value == parameter.default if parameter.kind is parameter.KEYWORD_ONLY else not value
            if isinstance(value, bool | int | float | str | tuple) and not usual and name != "seed":
                yield name, value
