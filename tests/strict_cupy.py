"""A strict stand-in for CuPy, so that a machine without a GPU sees where NumPy code would break on one.

Its arrays *hold* a NumPy array (they are no subclass, so NumPy's own leniency cannot slip in), and what real
CuPy refuses raises here too. Names and signatures come from ``cupy_api_14.2.0.json``, which was read from the
real module; what that record leaves out stands in ``LISTED``. ``test_strict_cupy.py`` shows each refusal, and
holds both lists against a real CuPy where one is installed.

Some things raise here that real CuPy lets pass, because they hide a mistake: integer indices out of range (CuPy
wraps them), assignment through repeated indices (undefined there), a NumPy scalar that widens the result
(float32 array × ``np.float64``), a NumPy index array (copied to the device at each use), NumPy's own functions
on device arrays, ``a @= b`` (no in-place product there), ``x in a`` (waits for each element), ``a == None`` (an array
there, element by element), a device array as the bound of a slice, or as a number of steps or repeats (both wait).
Every thread has a stream of its own here, and what one stream made another may only touch after waiting for it.

No GPU code runs: kernels, memory and the rounding of a GPU are not tested by this module.
"""

from __future__ import annotations

import inspect
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


API: dict[str, Any] = json.loads((Path(__file__).parent / "cupy_api_14.2.0.json").read_text())

CONSTANTS = _words(
    "newaxis pi e inf nan euler_gamma dtype finfo iinfo bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 "
    "intp uintp float16 float32 float64 complex64 complex128 generic number integer signedinteger "
    "unsignedinteger inexact floating complexfloating"
)
"""What CuPy takes from NumPy as it is; the record does not have it."""

LISTED = {
    "asnumpy": "(a, stream=None, order='C', out=None, *, blocking=True)",
    "is_available": "()",
    "lib.stride_tricks.as_strided": "(x, shape=None, strides=None)",
    "lib.stride_tricks.sliding_window_view": "(x, window_shape, axis=None, *, subok=False, writeable=False)",
}
"""Functions that the record does not have, with their signatures."""

METHODS = {
    "argmax": "(axis=None, out=None, dtype=None, keepdims=False)",
    "argmin": "(axis=None, out=None, dtype=None, keepdims=False)",
    "astype": "(dtype, order='K', casting=None, subok=None, copy=True)",
    "clip": "(min=None, max=None, out=None)",
    "compress": "(condition, axis=None, out=None)",
    "conj": "()",
    "conjugate": "()",
    "copy": "(order='C')",
    "fill": "(value)",
    "flatten": "(order='C')",
    "put": "(indices, values, mode='wrap')",
    "reshape": "(*shape, order='C', copy=None)",
    "transpose": "(*axes)",
    "view": "(dtype=None, type=None)",
}
"""Methods whose signature is not that of the function of the same name without its first parameter."""

UFUNC_METHODS = {
    "at": {"add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"},
    "reduce": {"add", "multiply"},
    "accumulate": {"add", "multiply"},
    "reduceat": {"add"},
    "outer": set(API["ufuncs"]),
}
"""Which ufuncs have which method; CuPy raises NotImplementedError for the others."""

AT_TYPES = {
    "add": "ilILefd",
    "subtract": "iI",
    **dict.fromkeys(("maximum", "minimum"), "ilILfd"),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), "ilIL"),
}
"""The dtypes that the method ``at`` takes: those of which the device has an atomic function."""

# Parameters of Python numbers: an array there would need __index__, which device arrays do not have.
_NUMBERS = _words(
    "axis axes axis1 axis2 shape newshape new_shape window_shape strides repeats reps k kth offset n N M num start "
    "stop step decimals source destination pad_width dimensions indices_or_sections minlength"
)
# Parameters of arrays: a list raises there, and so does a Python number in the first place.
_ARRAYS = _words("a a1 a2 ar ar1 ar2 arr array ary b condition dst f m prototype v val x y z")
_ANY_OBJECT = _words("ndim shape size iscomplexobj isrealobj")
# Whose first parameter holds arrays and nothing else; and those that take no Python number beside an array.
_JOINS = _words("column_stack concatenate stack")
_PRODUCTS = _words("dot inner outer tensordot vdot")
_ZERO_D_RESULTS = _words("allclose array_equal array_equiv count_nonzero")
# The shape of the result is known only to the device: the host waits for it.
_SYNCHRONISING = _words(
    "argwhere array2string array_repr array_str bincount compress extract flatnonzero histogram intersect1d nonzero "
    "save savetxt savez savez_compressed setdiff1d setxor1d sliding_window_view trim_zeros union1d unique unique_all "
    "unique_counts unique_inverse unique_values"
)

_ATTRIBUTES = frozenset(API["ndarray"])
_watchers: list[list[str]] = []


@contextmanager
def synchronisations() -> Iterator[list[str]]:
    """Yield a list that gets a line for each time the host waits for the device: what waits, and where."""
    seen: list[str] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers[:] = [watcher for watcher in _watchers if watcher is not seen]


def _synchronise(what: str) -> None:
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    for watcher in _watchers:
        watcher.append(f"{what} at {Path(frame.f_code.co_filename).name}:{frame.f_lineno}")


# --- Streams: which work has to wait for which ---------------------------------------------------------------


class Moment(NamedTuple):
    """A place in a stream's queue; what stands before it in the same queue is done first."""

    stream: Stream
    number: int


class Stream:
    """The queue of one thread. It knows how far it has waited for each of the others."""

    def __init__(self) -> None:
        self._reached: dict[Stream, int] = {self: 0}

    def next_moment(self) -> Moment:
        self._reached[self] += 1
        return Moment(self, self._reached[self])

    def touch(self, what: str, array: ndarray) -> None:
        """Refuse an array of a stream that has not been waited for so far."""
        made = array._made
        if max(self._reached.get(made.stream, 0), _finished.get(made.stream, 0)) < made.number:
            raise RuntimeError(f"cupy.{what}: this stream did not wait for the one that made the array")

    def record(self, event: None = None) -> Any:
        return dict(self._reached)

    def wait_event(self, event: Any) -> None:
        for stream, number in event.items():
            self._reached[stream] = max(number, self._reached.get(stream, 0))

    def synchronize(self) -> None:
        _synchronise("stream.synchronize")
        for stream, number in self._reached.items():
            _finished[stream] = max(number, _finished.get(stream, 0))


_finished: WeakKeyDictionary[Stream, int] = WeakKeyDictionary()  # how far the host has waited for each stream
_own = threading.local()


def _current_stream() -> Stream:
    if not hasattr(_own, "stream"):
        _own.stream = Stream()
    stream: Stream = _own.stream
    return stream


# --- The way to NumPy and back: check the arguments, take out the held arrays, wrap the results ----------------


def _wrap(host: Any) -> ndarray:
    if host.dtype.char not in "?bBhHiIlLqQefdFD":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    array = object.__new__(ndarray)
    array._host = np.asarray(host)  # a NumPy scalar becomes 0-d
    array._made = _current_stream().next_moment()
    return array


def _view(array: ndarray, host: Any) -> ndarray:
    """A view of an array, made when the array was made: it is no work for a stream."""
    view = _wrap(host)
    view._made = array._made
    return view


def _refuse(name: str, value: Any) -> TypeError:
    return TypeError(f"cupy.{name}: Unsupported type {type(value)}")


def _run(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call NumPy's ``function`` on the held arrays; arrays and scalars in the result are stand-ins again."""
    given: list[ndarray] = []
    hosts = [_lower(name, arg, given) for arg in args]
    keywords = {key: _lower(name, value, given) for key, value in kwargs.items()}
    with np.errstate(all="ignore"):  # CuPy knows no floating-point warnings
        return _lift(name, function(*hosts, **keywords), given)


def _lower(name: str, value: Any, given: list[ndarray]) -> Any:
    if isinstance(value, ndarray):
        _current_stream().touch(name, value)
        given.append(value)
        return value._host
    if isinstance(value, np.ndarray):
        raise _refuse(name, value)
    return type(value)(_lower(name, item, given) for item in value) if type(value) in (list, tuple) else value


def _lift(name: str, result: Any, given: list[ndarray]) -> Any:
    if isinstance(result, (np.ndarray, np.generic)) or name in _ZERO_D_RESULTS:
        for array in given:
            if array._host is result:  # `out=` comes back as the same object
                array._made = _current_stream().next_moment()
                return array
        return _wrap(np.asarray(result))
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*(_lift(name, item, given) for item in result))
    return type(result)(_lift(name, item, given) for item in result) if type(result) in (list, tuple) else result


@cache
def signature(text: str) -> inspect.Signature:
    """The signature that a text like ``"(a, axis=None)"`` says."""
    scope: dict[str, Any] = {}
    exec("def function" + text.replace("<class 'float'>", "float").replace("<class 'int'>", "int") + ": ...", scope)
    return inspect.signature(scope["function"])


@cache
def method_signature(name: str) -> str:
    """The signature of an array's method, without ``self``."""
    if name in METHODS:
        return METHODS[name]
    function = signature(API["functions"][name])
    return str(function.replace(parameters=list(function.parameters.values())[1:]))


@cache
def _parameters(text: str, positional: int, keywords: tuple[str, ...]) -> tuple[str, ...]:
    """The parameter that each argument of a call belongs to; TypeError for a keyword that CuPy lacks."""
    bound = signature(text).bind(*range(positional), **dict.fromkeys(keywords))
    met = {}
    for parameter, value in bound.arguments.items():
        for place in value if isinstance(value, tuple) else (value,):
            met[None if isinstance(place, dict) else place] = parameter
    return (*(met[place] for place in range(positional)), *keywords)


def _check_arguments(name: str, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    parameters = _parameters(text, len(args), tuple(kwargs))
    for position, (parameter, value) in enumerate(zip(parameters, (*args, *kwargs.values()))):
        if parameter in _NUMBERS and _holds_array(value):
            raise TypeError(f"cupy.{name}: 'ndarray' object cannot be interpreted as an integer ({parameter})")
        scalar_allowed = name in _ANY_OBJECT or (position > 0 and name not in _PRODUCTS)
        if parameter in _ARRAYS and not (isinstance(value, ndarray) or (scalar_allowed and np.isscalar(value))):
            raise _refuse(name, value)
        if parameter in ("args", "arys", "operands") and isinstance(value, (tuple, list)):
            raise _refuse(name, value)
        if parameter == "tup" and name in _JOINS and not all(isinstance(item, ndarray) for item in value):
            raise TypeError(f"cupy.{name}: Only cupy arrays can be joined")
    if name == "einsum" and kwargs.keys() - {"dtype", "casting", "optimize"}:
        raise TypeError(f"cupy.einsum: Did not understand the following kwargs: {sorted(kwargs)}")


def _repeats_by_list(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether elements are repeated so many times each: a list is copied to the device, and back."""
    return name == "repeat" and any(isinstance(value, (list, tuple)) for value in (*args, *kwargs.values()))


def _holds_array(value: Any) -> bool:
    return any(map(_holds_array, value)) if isinstance(value, (tuple, list)) else isinstance(value, ndarray)


def _refuse_widening(name: str, args: tuple[Any, ...]) -> None:
    scalars = [arg.dtype for arg in args if isinstance(arg, np.generic)]
    arrays = [arg.dtype for arg in args if isinstance(arg, ndarray)] if scalars else []
    if arrays and np.result_type(*arrays, *scalars) != np.result_type(*arrays):
        raise TypeError(f"cupy.{name}: a NumPy scalar of {scalars[0]} widens {arrays[0]}; use a Python number")


def _checked(name: str, text: str | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's ``function`` behind CuPy's signature."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if text is not None:
            _check_arguments(name, text, args, kwargs)
        if name in ("where", "clip"):
            _refuse_widening(name, args)
        if name in _SYNCHRONISING or (name == "where" and len(args) == 1) or _repeats_by_list(name, args, kwargs):
            _synchronise(name)
        return _run(name, function, args, kwargs)

    return call


# --- Arrays -------------------------------------------------------------------------------------------------


def _reader(convert: Callable[[Any], Any]) -> Callable[[ndarray], Any]:
    """A method that gives the value to the host, which has to wait for it."""

    def read(self: ndarray) -> Any:
        _synchronise(convert.__name__)
        _current_stream().touch(convert.__name__, self)
        return convert(self._host)

    return read


class Flags(NamedTuple):
    """All that CuPy says of the memory: there is no ``writeable``."""

    c_contiguous: bool
    f_contiguous: bool
    owndata: bool


class ndarray:
    """An array "on the device": holds a NumPy array, shows CuPy's names."""

    __slots__ = ("_host", "_made")
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 100
    __array_ufunc__ = None  # so that `numpy_array + standin` reaches __radd__, which refuses
    __contains__ = None

    _host: Any
    _made: Moment

    def __init__(self, shape: Any, dtype: Any = float, memptr: None = None, strides: None = None, order: Any = "C"):
        made = empty(shape, dtype, order)
        self._host, self._made = made._host, made._made

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, *args: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} got an array of the device; call xp.{function.__name__}")

    dtype, shape, ndim, size = (property(attrgetter(f"_host.{name}")) for name in _words("dtype shape ndim size"))
    itemsize, nbytes, strides = (property(attrgetter(f"_host.{name}")) for name in _words("itemsize nbytes strides"))

    def __getattr__(self, name: str) -> Any:
        if name in ("T", "mT", "real", "imag"):
            return _view(self, getattr(self._host, name))
        offered = name in _ATTRIBUTES and hasattr(np.ndarray, name)
        if not offered or not (name in METHODS or name in API["functions"]):
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")
        return partial(self._method, name)

    def _method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        _check_arguments(name, method_signature(name), args, kwargs)
        filled_from_device = name == "fill" and any(isinstance(value, ndarray) for value in (*args, *kwargs.values()))
        if name in _SYNCHRONISING or filled_from_device or _repeats_by_list(name, args, kwargs):
            _synchronise(name)
        return _run(name, getattr(np.ndarray, name), (self, *args), kwargs)

    @property
    def flags(self) -> Flags:
        return Flags(*(self._host.flags[name] for name in ("C_CONTIGUOUS", "F_CONTIGUOUS", "OWNDATA")))

    def __imatmul__(self, other: Any) -> Any:
        raise TypeError("CuPy has no in-place matrix product: `a @= b` would make a new array there")

    # To and from the host

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        _synchronise("get")
        _current_stream().touch("get", self)
        if out is None:
            return np.array(self._host, order=order)  # type: ignore[call-overload]
        np.copyto(out, self._host, casting="no")
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        if type(arr) is not np.ndarray or (arr.shape, arr.dtype) != (self.shape, self.dtype):
            raise TypeError("set() takes a numpy.ndarray of the same shape and dtype")
        self._host[...] = arr

    item, tolist = _reader(np.ndarray.item), _reader(np.ndarray.tolist)
    __bool__, __int__, __float__, __complex__ = map(_reader, (bool, int, float, complex))
    __str__, __repr__ = _reader(str), _reader(repr)

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.ndim == 0 else str(self), spec)

    def __copy__(self) -> ndarray:
        return _wrap(self._host.copy())

    def __deepcopy__(self, memo: Any) -> ndarray:
        return _wrap(self._host.copy())

    def __reduce__(self) -> Any:
        _synchronise("pickle")
        _current_stream().touch("pickle", self)
        return array, (self._host.copy(),)

    # Elements

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[row] for row in range(len(self)))

    def _key(self, key: Any) -> tuple[Any, ...]:
        """NumPy's key; a scalar position gets an ellipsis, so that it is a 0-d view as in CuPy."""
        items = []
        for item in key if isinstance(key, tuple) else (key,):
            if isinstance(item, np.ndarray):
                raise TypeError("a NumPy index array is copied to the device at each use; move it there once")
            is_list = isinstance(item, list)
            items.append(item._host if isinstance(item, ndarray) else np.array(item) if is_list else item)
        if not any(isinstance(item, np.ndarray) or item is Ellipsis for item in items):
            items.append(Ellipsis)
        return tuple(items)

    def __getitem__(self, key: Any) -> ndarray:
        key = self._key(key)
        if _has_kind("b", key):
            _synchronise("boolean mask")
        part = self._host[key]
        return _view(self, part) if np.may_share_memory(part, self._host) else _wrap(part)

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(value, ndarray) and not np.isscalar(value):
            raise ValueError(f"non-scalar {type(value)} cannot be used for fill")
        self._update(np.ndarray.__setitem__, key, value, repeats_allowed=False)

    def scatter_add(self, slices: Any, value: Any) -> None:
        cupy.add.at(self, slices, value)

    def _update(self, update: Any, key: Any, value: Any, repeats_allowed: bool = True) -> None:
        key = self._key(key)
        if _has_kind("b", key) and isinstance(value, ndarray) and value.ndim > 0:
            _synchronise("boolean mask")
        if _has_kind("iu", key) and not repeats_allowed:
            touched = np.arange(self.size).reshape(self.shape)[key]
            if np.unique(touched).size < touched.size:
                raise ValueError("assignment through repeated indices is undefined in CuPy; use xp.add.at")
        _run("__setitem__", lambda host, new: update(host, key, new), (self, value), {})
        self._made = _current_stream().next_moment()


def _has_kind(kinds: str, key: tuple[Any, ...]) -> bool:
    return any(isinstance(item, np.ndarray) and item.dtype.kind in kinds for item in key)


# --- Ufuncs and operators ------------------------------------------------------------------------------------


class ufunc:
    """An elementwise function: takes stand-ins and Python numbers, and only ``out``, ``dtype``, ``casting``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._numpy = getattr(np, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.keys() - {"out", "dtype", "casting"}:
            raise TypeError(f"cupy.{self.name}: Wrong arguments {sorted(kwargs)}")
        for arg in args:
            if not isinstance(arg, (ndarray, bool, int, float, complex, np.generic)):
                raise _refuse(self.name, arg)
        out = kwargs.get("out")
        for array in out if isinstance(out, tuple) else (out,):
            if array is not None and not isinstance(array, ndarray):
                raise _refuse(self.name, array)
        _refuse_widening(self.name, args)
        return _run(self.name, self._numpy, args, kwargs)

    def __getattr__(self, method: str) -> Any:
        if method not in UFUNC_METHODS:
            raise AttributeError(f"'cupy.ufunc' object has no attribute {method!r}")
        if self.name not in UFUNC_METHODS[method]:
            raise NotImplementedError(f"`cupy_{self.name}.{method}` is not supported yet")
        return self._at if method == "at" else _checked(method, None, getattr(self._numpy, method))

    def _at(self, a: ndarray, indices: Any, b: Any) -> None:
        if a.dtype.char not in AT_TYPES[self.name]:
            raise TypeError(f"cupy.{self.name}.at only supports {AT_TYPES[self.name]} as data type")
        a._update(self._numpy.at, indices, b)


def _operator(function: Any, reverse: bool = False, in_place: bool = False) -> Callable[..., Any]:
    def binary(self: ndarray, *other: Any) -> Any:
        operands = (*other, self) if reverse else (self, *other)
        return function(*operands, **({"out": self} if in_place else {}))

    return binary


def _add_operators() -> None:
    both_ways = "add sub:subtract mul:multiply truediv:true_divide floordiv:floor_divide mod:remainder pow:power"
    bitwise = "and:bitwise_and or:bitwise_or xor:bitwise_xor lshift:left_shift rshift:right_shift"
    for pair in _words(f"{both_ways} {bitwise} divmod matmul"):
        operator, name = pair.split(":") if ":" in pair else (pair, pair)
        setattr(ndarray, f"__{operator}__", _operator(ufunc(name)))
        setattr(ndarray, f"__r{operator}__", _operator(ufunc(name), reverse=True))
        if operator not in ("divmod", "matmul"):
            setattr(ndarray, f"__i{operator}__", _operator(ufunc(name), in_place=True))
    comparisons = "eq:equal ne:not_equal lt:less le:less_equal gt:greater ge:greater_equal"
    for pair in _words(f"{comparisons} neg:negative pos:positive abs:absolute invert:invert"):
        operator, name = pair.split(":")
        setattr(ndarray, f"__{operator}__", _operator(ufunc(name)))


# --- Making arrays -------------------------------------------------------------------------------------------


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    """The one door from the host: takes a NumPy array, Python numbers and lists of them, or stand-ins."""
    if isinstance(a, ndarray) and not copy and (dtype is None or a.dtype == dtype):
        return a
    if isinstance(a, np.ndarray):
        return _wrap(np.array(a, dtype, order=order))
    if _mixes(a):
        raise TypeError("cupy.array: a list of device arrays holds nothing else: implicit conversion is not allowed")
    return _wrap(_run("asarray", partial(np.array, dtype=dtype, order=order), (a,), {})._host)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _mixes(value: Any) -> bool:
    """Whether a nested list holds device arrays, and something else."""
    return len({isinstance(leaf, ndarray) for leaf in _leaves(value)}) == 2


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool = True,
    order: Any = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    made = asarray(obj, dtype, order, copy=copy)
    return made.reshape((1,) * (ndmin - made.ndim) + made.shape) if ndmin > made.ndim else made


def asnumpy(a: Any, stream: Any = None, order: Any = "C", out: Any = None, *, blocking: bool = True) -> Any:
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a)


def _poisoned(function: Callable[..., Any]) -> Callable[..., Any]:
    """Memory that nobody wrote to holds NaN (or the largest integer), so that reading it shows."""

    def make(*args: Any, **kwargs: Any) -> Any:
        host = function(*args, **kwargs)
        host.fill(np.nan if host.dtype.kind in "fc" else True if host.dtype.kind == "b" else np.iinfo(host.dtype).max)
        return host

    return make


empty = _checked("empty", API["functions"]["empty"], _poisoned(np.empty))


# --- The module ----------------------------------------------------------------------------------------------


class Generator:
    """CuPy's generator; it lacks normal, permutation, shuffle and choice, so draw on the host."""

    def __init__(self, seed: Any = None) -> None:
        self._numpy = np.random.default_rng(seed)

    def __getattr__(self, name: str) -> Any:
        if name not in API["generator"]:
            raise AttributeError(f"'cupy.random.Generator' object has no attribute {name!r}")
        return _checked(name, None, getattr(self._numpy, name))


def _linalg() -> SimpleNamespace:
    def offer(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(a: ndarray, *args: Any, **kwargs: Any) -> Any:
            if kwargs.keys() & {"upper", "hermitian", "rtol"} or not isinstance(a, ndarray):
                raise _refuse(f"linalg.{function.__name__}", kwargs or a)
            return _run(function.__name__, function, (a, *args), kwargs)

        return call

    functions = {name: getattr(np.linalg, name, None) for name in API["linalg"]}
    return SimpleNamespace(**{name: offer(value) for name, value in functions.items() if inspect.isroutine(value)})


class StrictCupy(ModuleType):
    """What ``import cupy`` gives inside :func:`installed`."""

    def __getattr__(self, name: str) -> Any:
        if name not in API["ufuncs"] and name not in API["functions"]:
            raise AttributeError(f"module 'cupy' has no attribute {name!r} (strict stand-in)")
        signature = API["functions"].get(name)
        offered = ufunc(name) if name in API["ufuncs"] else _checked(name, signature, getattr(np, name))
        setattr(self, name, offered)  # the next look-up finds it
        return offered


def _module() -> StrictCupy:
    module = StrictCupy("cupy", __doc__)
    as_strided, sliding_window_view = (
        _checked(name, LISTED[f"lib.stride_tricks.{name}"], getattr(np.lib.stride_tricks, name))
        for name in ("as_strided", "sliding_window_view")
    )
    vars(module).update(
        {name: getattr(np, name) for name in CONSTANTS},
        __version__=API["cupy"],
        ndarray=ndarray,
        ufunc=ufunc,
        array=array,
        asarray=asarray,
        asanyarray=asarray,
        asnumpy=asnumpy,
        empty=empty,
        empty_like=_checked("empty_like", API["functions"]["empty_like"], _poisoned(np.empty_like)),
        is_available=lambda: True,
        linalg=_linalg(),
        random=SimpleNamespace(Generator=Generator, default_rng=Generator),
        lib=SimpleNamespace(
            stride_tricks=SimpleNamespace(as_strided=as_strided, sliding_window_view=sliding_window_view)
        ),
        cuda=SimpleNamespace(
            runtime=SimpleNamespace(getDeviceCount=lambda: 1),
            get_current_stream=_current_stream,
            is_available=lambda: True,
        ),
    )
    return module


_add_operators()
cupy = _module()


@contextmanager
def installed() -> Iterator[StrictCupy]:
    """Make ``import cupy`` give the stand-in, so that the package takes its real path to the device."""
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = cupy
    try:
        yield cupy
    finally:
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
