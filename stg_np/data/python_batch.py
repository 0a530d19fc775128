"""CIFAR-10's *python* format, a pickle of 2009, read without executing it.

A pickle is a program for a small stack machine, and two of its instructions reach the outside: GLOBAL looks up any
function of the reader's machine, REDUCE calls it. So no unpickler is used here. The standard library's
``pickletools.genops`` merely parses the instructions; :func:`_value` follows the few that a batch consists of, where
GLOBAL knows four names and REDUCE writes down what would have been called. Any other instruction or name is refused,
and so are more instructions than a batch has, and keys that are no text: to hash, compare or print what a stranger has
put into itself a million times can kill the interpreter.
(NumPy is not involved, so neither is its warning about old pickles.)
"""

from __future__ import annotations

import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stg_np.data.base import DataError
from stg_np.foreign import showable

PIXELS = 3 * 32 * 32

MOST_INSTRUCTIONS = 300_000
"""An official batch of 10,000 pictures has some 40,000."""

NAMES = frozenset(
    {
        "numpy.core.multiarray _reconstruct",
        "numpy._core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
    }
)

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = frozenset({"INT", "BININT", "BININT1", "BININT2", "STRING", "BINSTRING", "SHORT_BINSTRING"})
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Object:
    """What the pickle says of an object that it would build: the call's arguments, and the state set afterwards."""

    def __init__(self, arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None


def read_python_batch(content: bytes, where: str) -> NDArray[np.uint8]:
    """Return the batch as records ``(N, 3073)`` uint8, exactly the bytes of the binary format.

    Raises:
        DataError: if the pickle asks for anything but one array of bytes, or is cut off, or is no batch.
    """
    try:
        batch = _of_kind(dict, _value(content), "the batch")
        labels = _of_kind(list, batch["labels"], "labels")
        for label in labels:
            _of_kind(int, label, "a label")
        return np.column_stack([np.frombuffer(bytes(labels), np.uint8), _pixels(batch["data"])])
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = showable(" ".join(str(error).split()), 150)
        raise DataError(
            f"{where} is refused and nothing of it was executed, for it is no batch of CIFAR-10 ({reason}): "
            "get the official file again"
        ) from error


def _pixels(array: Any) -> NDArray[np.uint8]:
    """The array ``(N, 3072)`` from its state, laid out as NumPy's ``ndarray.__setstate__`` takes it."""
    _version, shape, dtype, fortran_order, raw = _of_kind(tuple, _of_kind(_Object, array, "data").state, "the array")
    rows, columns = (_of_kind(int, side, "a side of the array") for side in _of_kind(tuple, shape, "its shape"))
    kind, *_ = _of_kind(tuple, _of_kind(_Object, dtype, "its dtype").arguments, "its dtype")
    if _of_kind(str, kind, "its dtype") != "u1" or columns != PIXELS:
        raise ValueError(f"it holds no array of bytes with {PIXELS} columns")
    pixels = np.frombuffer(_of_kind(str, raw, "the pixels").encode("latin-1"), np.uint8)
    return pixels.reshape((rows, columns), order="F" if fortran_order is True else "C")


def _of_kind(kind: type, value: Any, name: str) -> Any:
    """The value, if it is of exactly this type."""
    if type(value) is not kind:
        raise TypeError(f"{name} is no {kind.__name__.lstrip('_').lower()}")
    return value


def _value(content: bytes) -> Any:
    """Follow the instructions and return what they describe: dictionaries, lists, numbers, strings, ``_Object``.

    Raises:
        ValueError: if there is an instruction or a name that no batch contains; also, with TypeError and other
            kinds, if the instructions make no sense.
    """
    stack: list[Any] = []
    marks: list[int] = []  # where on the stack the items of a tuple, list or dictionary begin
    memo: dict[Any, Any] = {}

    def pop_to_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, argument, _position) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if count > MOST_INSTRUCTIONS:
            raise ValueError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
        elif name == "TUPLE":
            stack.append(tuple(pop_to_mark()))
        elif name == "APPENDS":
            items = pop_to_mark()
            _of_kind(list, stack[-1], "what is appended to").extend(items)
        elif name == "SETITEMS":
            items = pop_to_mark()
            keys = [_of_kind(str, key, "a key") for key in items[::2]]
            _of_kind(dict, stack[-1], "what has keys").update(zip(keys, items[1::2]))
        elif name == "GLOBAL" and argument in NAMES:
            stack.append(argument)
        elif name == "REDUCE":
            stack[-2:] = [_Object(stack[-1])]
        elif name == "BUILD":
            state = stack.pop()
            _of_kind(_Object, stack[-1], "what has a state").state = state
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            raise ValueError(f"it asks for {name}" + (f" {argument[:80]!r}" if isinstance(argument, str) else ""))
    raise ValueError("it has no end")  # pragma: no cover - genops has already said so
