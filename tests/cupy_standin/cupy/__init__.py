"""A stand-in for CuPy, on top of NumPy: see the README beside this package. It is not CuPy."""

import ctypes
import operator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy

__version__ = "14.2.0"
STAND_IN = True


class Counts:
    """What a device would have been asked to do."""

    def __init__(self) -> None:
        self.launches = 0
        self.to_device = 0
        self.to_host = 0
        self.by_name: dict[str, int] = {}

    def launch(self, name: str, count: int = 1) -> None:
        self.launches += count
        self.by_name[name] = self.by_name.get(name, 0) + count

    def now(self) -> tuple[int, int, int]:
        """Launches, copies to the device, copies from it."""
        return self.launches, self.to_device, self.to_host


counts = Counts()

LAUNCHES = {"mean": 2, "var": 4, "std": 4}
"""Functions that are more than one kernel for each result."""

FREE = {"empty", "empty_like"}
JOINED = {"concat", "concatenate", "stack", "hstack", "vstack"}
ON_THE_HOST = {"isdtype", "result_type", "can_cast", "broadcast_shapes"}
GONE = {"scatter_add", "vecdot", "asfarray", "float_"}


def _unwrap(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, numpy.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: CuPy takes no NumPy array here")
    if isinstance(value, (list, tuple)):
        return type(value)(_unwrap(item) for item in value)
    return value


def _root(array: "ndarray") -> "ndarray":
    return array if array.base is None else array.base


def _wrap(result: Any, name: str, sources: tuple[Any, ...], out: Any = None) -> Any:
    """What CuPy would return for `result` of NumPy; counts what it took."""
    if isinstance(result, tuple):
        parts = [_wrap(item, name, sources) for item in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    if isinstance(out, ndarray):
        counts.launch(name)
        return out
    if not isinstance(result, (numpy.ndarray, numpy.generic)):
        return result
    wrapped = ndarray._of(numpy.asarray(result))
    for source in sources:
        if isinstance(source, ndarray) and isinstance(result, numpy.ndarray):
            if result is source._a:
                return source
            if result.size and numpy.may_share_memory(result, source._a):
                wrapped.base = _root(source)
                return wrapped
    if name not in FREE:
        counts.launch(name, LAUNCHES.get(name, 1))
    return wrapped


def _call(function: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    options = {key: option for key, option in options.items() if key not in ("device", "stream")}
    plain = {key: _unwrap(option) for key, option in options.items()}
    result = function(*map(_unwrap, args), **plain)
    flat: list[Any] = []
    for arg in args:
        flat.extend(arg if isinstance(arg, (list, tuple)) else [arg])
    if name == "matmul":  # of stacks of matrices CuPy copies operands that are not in the order of C
        copies = [arg for arg in args if arg.ndim > 2 and not arg.flags.c_contiguous]
        counts.launch("copy for matmul", len(copies))
    if name in JOINED:
        counts.launch(name, sum(isinstance(part, ndarray) for part in flat) - 1)  # the most it takes: one a part
    return _wrap(result, name, tuple(flat), options.get("out"))


class Device:
    id = 0
    compute_capability = "80"

    def __init__(self, *_: Any) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "<stand-in for CUDA Device 0>"

    def synchronize(self) -> None:
        counts.to_host += 1


class ndarray:
    """An array under CuPy's rules."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    _a: numpy.ndarray
    base: "ndarray | None"

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        self._a, self.base = numpy.empty(shape, dtype), None

    @classmethod
    def _of(cls, array: numpy.ndarray) -> "ndarray":
        self = cls.__new__(cls)
        self._a, self.base = array, None
        return self

    device = property(lambda self: Device())
    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    nbytes = property(lambda self: self._a.nbytes)
    itemsize = property(lambda self: self._a.itemsize)
    strides = property(lambda self: self._a.strides)
    flags = property(lambda self: self._a.flags)
    T = property(lambda self: _wrap(self._a.T, "T", (self,)))
    mT = property(lambda self: _wrap(self._a.mT, "mT", (self,)))
    data = property(lambda self: SimpleNamespace(ptr=self._a.__array_interface__["data"][0], device_id=0))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self._a.__array_interface__, "version": 3}

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if any(isinstance(value, numpy.ndarray) for value in (*inputs, *options.get("out", ()))):
            return NotImplemented
        if isinstance(options.get("out"), tuple):
            options["out"] = options["out"][0]
        return _call(ufunc if method == "__call__" else getattr(ufunc, method), ufunc.__name__, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return _call(function, function.__name__, args, options)

    def get(self) -> numpy.ndarray:
        counts.to_host += 1
        return self._a.copy()

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.get()[()], spec)

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> "ndarray":
        return _wrap(numpy.asarray(self._a[_index(index)]), "take", (self,))

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, numpy.ndarray) and value.ndim:
            raise TypeError(f"Unsupported type {type(value)}: CuPy takes no NumPy array here")
        counts.launch("setitem")
        self._a[_index(index)] = value._a if isinstance(value, ndarray) else value

    def __getattr__(self, name: str) -> Any:
        method = getattr(object.__getattribute__(self, "_a"), name)
        if not callable(method):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> Any:
            if name == "astype" and self.dtype == args[0] and not options.get("copy", True):
                return self
            plain = {key: _unwrap(option) for key, option in options.items()}
            return _wrap(method(*map(_unwrap, args), **plain), name, (self,), options.get("out"))

        return call

    def __deepcopy__(self, memo: Any) -> "ndarray":
        return self.copy()


def _index(index: Any) -> Any:
    """CuPy takes arrays and lists of NumPy as an index, and copies them each time."""
    parts = index if isinstance(index, tuple) else (index,)
    counts.to_device += sum(isinstance(part, (numpy.ndarray, list)) for part in parts)
    plain = tuple(part if isinstance(part, numpy.ndarray) else _unwrap(part) for part in parts)
    return plain if isinstance(index, tuple) else plain[0]


def _operator(name: str, function: Any) -> None:
    def binary(self: ndarray, other: Any) -> Any:
        return _wrap(function(self._a, _unwrap(other)), name, ())

    def reflected(self: ndarray, other: Any) -> Any:
        return _wrap(function(_unwrap(other), self._a), name, ())

    def in_place(self: ndarray, other: Any) -> Any:
        result = function(self._a, _unwrap(other))
        if not numpy.can_cast(result.dtype, self._a.dtype, "same_kind"):
            raise TypeError(f"Cannot cast ufunc '{name}' output from {result.dtype} to {self._a.dtype}")
        counts.launch(name)
        self._a[...] = result
        return self

    for prefix, method in (("", binary), ("r", reflected), ("i", in_place)):
        setattr(ndarray, f"__{prefix}{name}__", method)


def _function_of_self(name: str, function: Any) -> None:
    def method(self: ndarray, *other: Any) -> Any:
        return _wrap(function(self._a, *map(_unwrap, other)), name, ())

    setattr(ndarray, f"__{name}__", method)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift", "rshift", "xor"):
    _operator(_name, getattr(operator, _name))
for _name in ("and", "or"):
    _operator(_name, getattr(operator, f"{_name}_"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "pos", "abs", "invert"):
    _function_of_self(_name, getattr(operator, _name))


def asnumpy(array: Any, *_: Any, **__: Any) -> numpy.ndarray:
    return array.get() if isinstance(array, ndarray) else numpy.asarray(array)


def array(data: Any, dtype: Any = None, copy: bool = True, order: Any = "K", **_: Any) -> ndarray:
    if isinstance(data, ndarray) or (isinstance(data, (list, tuple)) and _holds_arrays(data)):
        return _wrap(numpy.array(_unwrap(data), dtype=dtype, copy=True, order=order), "array", ())
    counts.to_device += 1
    return ndarray._of(numpy.array(data, dtype=dtype, copy=True))


def asarray(data: Any, dtype: Any = None, **_: Any) -> ndarray:
    if isinstance(data, ndarray) and (dtype is None or data.dtype == dtype):
        return data
    return array(data, dtype=dtype)


def _holds_arrays(data: Any) -> bool:
    return any(isinstance(item, ndarray) or (isinstance(item, (list, tuple)) and _holds_arrays(item)) for item in data)


def astype(x: ndarray, dtype: Any, /, *, copy: bool = True, **_: Any) -> ndarray:
    if x.dtype == dtype and not copy:
        return x
    return _wrap(x._a.astype(dtype, copy=True), "astype", ())


def copyto(target: ndarray, source: Any, where: Any = True) -> None:
    counts.launch("copyto")
    numpy.copyto(target._a, _unwrap(source), where=_unwrap(where))


class ufunc:
    """An element-wise function."""

    def __init__(self, function: numpy.ufunc) -> None:
        self._function, self.__name__ = function, function.__name__

    def __call__(self, *args: Any, **options: Any) -> Any:
        return _call(self._function, self.__name__, args, options)

    def at(self, target: ndarray, index: Any, values: Any = None) -> None:
        counts.launch(f"{self.__name__}.at")
        self._function.at(target._a, _index(index), _unwrap(values))


class _Generator:
    def __init__(self, seed: Any) -> None:
        self._draw = numpy.random.default_rng(seed)

    def random(self, shape: Any = None, dtype: Any = numpy.float64, out: Any = None) -> ndarray:
        counts.launch("random")
        return ndarray._of(numpy.asarray(self._draw.random(shape, dtype=dtype)))


random = SimpleNamespace(default_rng=_Generator)


class _Runtime:
    CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF = 0, 1, 2, 14

    class CUDARuntimeError(RuntimeError):
        pass

    def getDeviceCount(self) -> int:
        return 1

    def getDevice(self) -> int:
        return 0

    def getDeviceProperties(self, _: int) -> dict[str, Any]:
        return {"name": b"stand-in for CUDA", "major": 8, "minor": 0, "multiProcessorCount": 1}

    def deviceGetAttribute(self, attribute: int, _: int) -> int:
        return {97: 163 * 1024}[attribute]  # shared memory of a block, compute capability 8.0

    def memGetInfo(self) -> tuple[int, int]:
        return 2**33, 2**34

    def runtimeGetVersion(self) -> int:
        return 12000

    def driverGetVersion(self) -> int:
        return 12000


class _Cuda:
    runtime, Device = _Runtime(), Device

    def __getattr__(self, name: str) -> Any:
        if name != "cublas":
            raise AttributeError(name)
        self.cublas = import_module(f"{__name__}.gemm").cublas(counts)
        return self.cublas

    def get_cublas_handle(self) -> int:
        return int(import_module(f"{__name__}.gemm").HANDLE)

    def get_current_stream(self) -> Any:
        return SimpleNamespace(ptr=0)

    def alloc_pinned_memory(self, count: int) -> Any:
        memory = (ctypes.c_char * count)()
        memory.ptr = ctypes.addressof(memory)
        return memory


cuda = _Cuda()


class RawModule:
    """CUDA source whose kernels `kernels` has a second time, in NumPy."""

    def __init__(self, code: str = "", options: Any = (), **_: Any) -> None:
        self.code = code

    def get_function(self, name: str) -> Any:
        kernels = import_module(f"{__name__}.kernels")
        if f" {name}(" not in self.code:
            raise AttributeError(f"the source has no kernel {name}")
        function = getattr(kernels, name)

        def launch(grid: Any, block: Any, args: Any, *, shared_mem: int = 0, stream: Any = None) -> None:
            counts.launch(name)
            with numpy.errstate(all="ignore"):  # a kernel warns of nothing
                function(*(arg._a if isinstance(arg, ndarray) else arg for arg in args))

        return launch


class ElementwiseKernel:
    """The checks of ids, the only ones of their kind that are launched."""

    def __init__(self, inputs: str, outputs: str, code: str, name: str, preamble: str) -> None:
        self._name = name

    def __call__(self, ids: ndarray, size: int, skips: bool, ignore: int, check: int, report: int, *more: Any) -> Any:
        counts.launch(self._name)
        skipped = skips & (ids._a == ignore)
        wrong = ~skipped & ((ids._a < 0) | (ids._a >= size))
        for found in ids._a[wrong][-1:]:
            ctypes.c_int64.from_address(report).value = check * 2**40 + int(found)
        places = numpy.where(skipped | wrong, 0, ids._a)
        return ndarray._of(more[0]._a[places[:, 0]] if more else places)


class ReductionKernel:
    """Sums of products over an axis, the only one of its kind that is launched."""

    def __init__(self, inputs: str, outputs: str, each: str, both: str, last: str, identity: str, name: str) -> None:
        if (each, both, identity) != ("R(a) * R(b)", "a + b", "0"):
            raise NotImplementedError(each)
        self._name = name

    def __call__(self, a: ndarray, b: ndarray, out: ndarray, axis: int) -> ndarray:
        counts.launch(self._name)
        with numpy.errstate(all="ignore"):  # a kernel warns of nothing
            numpy.sum(a._a * b._a.astype(out.dtype), axis=axis, out=out._a)
        return out


def __getattr__(name: str) -> Any:
    """Anything else is NumPy's function of that name, under the rules."""
    if name in GONE or not hasattr(numpy, name):
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    found = getattr(numpy, name)
    if isinstance(found, numpy.ufunc):
        return ufunc(found)
    if not callable(found) or isinstance(found, type) or name in ON_THE_HOST:
        return found

    def function(*args: Any, **options: Any) -> Any:
        return _call(found, name, args, options)

    return function
