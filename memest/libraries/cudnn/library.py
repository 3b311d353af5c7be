"""cuDNN itself, asked which plans it has for a convolution on a card that need not be here.

From 9.8 on cuDNN answers from a description of the card (``CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR``), without driver or GPU: NVIDIA cuDNN
documentation, "Deviceless AoT compilation". It comes with nvidia-cudnn-cu13 or -cu12 (the extra ``cuda``), or with torch's own CUDA
build; torch is not imported. None at hand, or another release than the one asked for, is no error: there is no answer then.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from memest.libraries.cudnn.question import Convolution
from memest.libraries.cudnn.workspace import Card, Release
from memest.sizes.interpreter import Lock
from memest.sizes.remembering import kept

_FIRST: Release = (9, 8)
_LOCK = Lock()
_ABSENT: ContextVar[bool] = ContextVar("absent", default=False)

# cudnn_graph.h: descriptors, attributes, types of attributes, modes and notes
_CONVOLUTION, _ENGINE, _ENGINE_CONFIG, _HEURISTICS, _PLAN, _GRAPH, _TENSOR, _DEVICE = 1, 2, 3, 4, 5, 15, 17, 38
_OPERATION = {"fwd": 10, "bwd_filter": 11, "bwd_data": 12}
_OPERATION_ATTRIBUTES = {"fwd": 700, "bwd_data": 706, "bwd_filter": 712}  # alpha, beta, convolution, w, x, y
_DATA_TYPE, _INT64, _FLOAT, _DOUBLE, _MODE, _HEURISTIC_MODE, _NOTE, _DESCRIPTOR, _CHAR = 1, 3, 4, 5, 7, 8, 11, 15, 24
_DTYPE = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 9}
_CROSS_CORRELATION = 1
_INSTANT, _FALLBACK = 0, 2
_TENSOR_CORE, _DOWN_CONVERTS, _NONDETERMINISTIC = 0, 1, 4
_MOST_NOTES = 32
_SIMPLEST = Convolution(
    direction="fwd", x=(1, 8, 8, 8), w=(8, 8, 1, 1), y=(1, 8, 8, 8), stride=(1, 1), padding=(0, 0), dilation=(1, 1)
)  # fmt: skip


@contextmanager
def absent() -> Iterator[None]:
    """A context in which no library is found: answers are those of a machine without one."""
    before = _ABSENT.set(True)
    try:
        yield
    finally:
        _ABSENT.reset(before)


def installed() -> Release | None:
    """The release of the cuDNN at hand; None where there is none, or one too old to answer."""
    return None if _ABSENT.get() or _library() is None else _library_release()


def plans(card: Card, release: Release, question: Convolution, *, every: bool = False) -> tuple[int, ...] | None:
    """Bytes of workspace of the plan torch takes with ``cudnn.benchmark`` off: the first that can be made, of mode INSTANT's list, then
    of the fallback list. With ``every`` those of all that can be made, in order: what ``benchmark`` tries. None where no library of that
    release is at hand; () where it has no plan."""
    if installed() != release:
        return None
    return _plans(card, question, every)


def knows(card: Card, release: Release) -> bool:
    """Whether the library at hand, of that release, has any plan for a card: one that it does not support gets none."""
    return bool(plans(card, release, _SIMPLEST))


@kept(50_000)
def _plans(card: Card, question: Convolution, every: bool) -> tuple[int, ...]:
    with _LOCK, _Descriptors(_loaded()) as descriptors:
        return tuple(descriptors.plans(card, question, every))


@cache
def _library() -> ctypes.CDLL | None:
    """cuDNN's library from the wheels, where what it needs is with it: without cuBLASLt it ends the process, without NVRTC it has fewer
    plans."""
    roots = _wheels()
    path = _file(roots, "cudnn/lib/libcudnn.so.9")
    if path is None:
        return None
    try:
        library = _declared(ctypes.CDLL(str(path)))
        cuda = int(library.cudnnGetCudartVersion()) // 1000
        for name, folder in (("cublasLt", "cublas"), ("nvrtc", "cuda_nvrtc")):
            file = f"lib{name}.so.{cuda}"
            if _file(roots, f"{folder}/lib/{file}", f"cu{cuda}/lib/{file}") is None:
                ctypes.CDLL(file)
    except (OSError, AttributeError):
        return None
    return library


def _wheels() -> list[Path]:
    """The folders that NVIDIA's wheels install into."""
    found = find_spec("nvidia") if sys.platform == "linux" else None
    return [Path(root) for root in (found.submodule_search_locations or ())] if found else []


def _file(roots: list[Path], *names: str) -> Path | None:
    return next((root / name for root in roots for name in names if (root / name).is_file()), None)


def _loaded() -> ctypes.CDLL:
    library = _library()
    assert library is not None
    return library


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    descriptor, number, of, pointer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_void_p
    library.cudnnGetVersion.restype = library.cudnnGetCudartVersion.restype = ctypes.c_size_t
    library.cudnnBackendCreateDescriptor.argtypes = [of, ctypes.POINTER(descriptor)]
    library.cudnnBackendDestroyDescriptor.argtypes = [descriptor]
    library.cudnnBackendFinalize.argtypes = [descriptor]
    library.cudnnBackendSetAttribute.argtypes = [descriptor, of, of, number, pointer]
    library.cudnnBackendGetAttribute.argtypes = [descriptor, of, of, number, ctypes.POINTER(number), pointer]
    return library


@cache
def _library_release() -> Release | None:
    version = int(_loaded().cudnnGetVersion())  # 92400 is 9.24.0
    release = (version // 10_000, version // 100 % 100)
    return release if release >= _FIRST else None


class _RefusedError(Exception):
    """cuDNN does not take a value, or cannot make a descriptor."""


class _Descriptors:
    """The descriptors of one question; all are destroyed when it is answered."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._made: list[ctypes.c_void_p] = []

    def __enter__(self) -> _Descriptors:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for descriptor in reversed(self._made):
            self._library.cudnnBackendDestroyDescriptor(descriptor)

    def plans(self, card: Card, question: Convolution, every: bool) -> Iterator[int]:
        """Workspace of the plans that can be made, in torch's order."""
        try:
            device = self._device(card)
            graph = self._graph(question)
        except _RefusedError:
            return
        for mode in (_INSTANT, _FALLBACK):
            for config in self._configs(graph, device, mode, in_pieces=not every):
                engine = self._made_of(_ENGINE)
                self._get(config, 300, _DESCRIPTOR, 1, (ctypes.c_void_p * 1)(engine.value))
                if self._left_out(engine, question):
                    continue
                plan = self._made_of(_PLAN)
                self._link(plan, 401, config)
                self._link(plan, 407, device)
                if self._library.cudnnBackendFinalize(plan) == 0:
                    size = ctypes.c_int64()
                    self._get(plan, 402, _INT64, 1, ctypes.byref(size))
                    yield size.value
                    if not every:
                        return

    def _left_out(self, engine: ctypes.c_void_p, question: Convolution) -> bool:
        """torch's ``filterEngineConfigs``, and its ``plan_errata_exception``."""
        if question.without:
            number = ctypes.c_int64()
            self._get(engine, 1301, _INT64, 1, ctypes.byref(number))
            if number.value in question.without:
                return True
        notes = (ctypes.c_int * _MOST_NOTES)()
        held = set(notes[: self._get(engine, 1303, _NOTE, _MOST_NOTES, notes)])
        return (
            _DOWN_CONVERTS in held
            or (question.deterministic and _NONDETERMINISTIC in held)
            or (question.dtype == "float32" and not question.tf32 and _TENSOR_CORE in held)
        )

    def _device(self, card: Card) -> ctypes.c_void_p:
        device = self._made_of(_DEVICE)
        text = json.dumps(card.properties()).encode()
        self._set(device, 2702, _CHAR, len(text), text)
        return self._finalized(device)

    def _graph(self, question: Convolution) -> ctypes.c_void_p:
        convolution = self._made_of(_CONVOLUTION)
        double = question.dtype == "float64"
        self._enum(convolution, 100, _DATA_TYPE, _DTYPE["float64" if double else "float32"])  # halves are summed in float32
        self._enum(convolution, 101, _MODE, _CROSS_CORRELATION)
        self._ints(convolution, 106, len(question.stride))
        self._ints(convolution, 102, *question.dilation)
        self._ints(convolution, 103, *question.stride)
        self._ints(convolution, 104, *question.padding)
        self._ints(convolution, 105, *question.padding)
        operation = self._made_of(_OPERATION[question.direction])
        first = _OPERATION_ATTRIBUTES[question.direction]
        number: Any = ctypes.c_double if double else ctypes.c_float
        self._set(operation, first, _DOUBLE if double else _FLOAT, 1, ctypes.byref(number(1)))
        self._set(operation, first + 1, _DOUBLE if double else _FLOAT, 1, ctypes.byref(number(0)))
        self._link(operation, first + 2, self._finalized(convolution))
        x, w, y = question.alignment
        self._link(operation, first + 3, self._tensor("w", question, question.w, w))
        self._link(operation, first + 4, self._tensor("x", question, question.x, x))
        self._link(operation, first + 5, self._tensor("y", question, question.y, y))
        graph = self._made_of(_GRAPH)
        self._link(graph, 801, self._finalized(operation))
        return self._finalized(graph)

    def _tensor(self, name: str, question: Convolution, shape: tuple[int, ...], alignment: int) -> ctypes.c_void_p:
        tensor = self._made_of(_TENSOR)
        self._enum(tensor, 901, _DATA_TYPE, _DTYPE[question.dtype])
        self._ints(tensor, 902, *shape)
        self._ints(tensor, 903, *question.strides(shape))
        self._ints(tensor, 906, ord(name))
        self._ints(tensor, 900, alignment)
        return self._finalized(tensor)

    def _configs(self, graph: ctypes.c_void_p, device: ctypes.c_void_p, mode: int, *, in_pieces: bool) -> Iterator[ctypes.c_void_p]:
        """The list of a mode. ``in_pieces`` asks piece by piece: a configuration takes cuDNN 0.3 ms, and the first mostly does."""
        heuristics = self._made_of(_HEURISTICS)
        self._link(heuristics, 201, graph)
        self._enum(heuristics, 200, _HEURISTIC_MODE, mode)
        self._link(heuristics, 204, device)
        if self._library.cudnnBackendFinalize(heuristics):
            return
        count, done = self._get(heuristics, 202, _DESCRIPTOR, 0, None), 0
        for asked in (1, 6, count) if in_pieces else (count,):
            found = [self._made_of(_ENGINE_CONFIG) for _ in range(min(asked, count))]
            rows = (ctypes.c_void_p * len(found))(*[c.value for c in found])
            held = min(self._get(heuristics, 202, _DESCRIPTOR, len(found), rows), len(found)) if found else 0
            yield from found[done:held]
            done = held

    def _made_of(self, kind: int) -> ctypes.c_void_p:
        descriptor = ctypes.c_void_p()
        _check(self._library.cudnnBackendCreateDescriptor(kind, ctypes.byref(descriptor)))
        self._made.append(descriptor)
        return descriptor

    def _finalized(self, descriptor: ctypes.c_void_p) -> ctypes.c_void_p:
        _check(self._library.cudnnBackendFinalize(descriptor))
        return descriptor

    def _set(self, descriptor: ctypes.c_void_p, attribute: int, kind: int, count: int, value: Any) -> None:
        _check(self._library.cudnnBackendSetAttribute(descriptor, attribute, kind, count, value))

    def _ints(self, descriptor: ctypes.c_void_p, attribute: int, *values: int) -> None:
        self._set(descriptor, attribute, _INT64, len(values), (ctypes.c_int64 * len(values))(*values))

    def _enum(self, descriptor: ctypes.c_void_p, attribute: int, kind: int, value: int) -> None:
        self._set(descriptor, attribute, kind, 1, ctypes.byref(ctypes.c_int(value)))

    def _link(self, descriptor: ctypes.c_void_p, attribute: int, other: ctypes.c_void_p) -> None:
        self._set(descriptor, attribute, _DESCRIPTOR, 1, (ctypes.c_void_p * 1)(other.value))

    def _get(self, descriptor: ctypes.c_void_p, attribute: int, kind: int, count: int, into: Any) -> int:
        """How many values there are (``count`` of them at most lie in ``into`` afterwards)."""
        found = ctypes.c_int64()
        _check(self._library.cudnnBackendGetAttribute(descriptor, attribute, kind, count, ctypes.byref(found), into))
        return found.value


def _check(status: int) -> None:
    if status:
        raise _RefusedError(status)
