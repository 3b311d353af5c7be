"""What a function works with and was not given: the modules, optimizers and tensors that it reaches through its closure, the globals it
names, its defaults, what it is bound to, and the functions of the user's that it calls.

Whatever the function changes there while it is recorded is taken back (:meth:`Surroundings.as_they_were`).
"""

from __future__ import annotations

import inspect
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from memest.sources.importers.torch.tensors.state import plainly_changed, put_back, same

_MOST = 20_000  # objects looked at
_LIBRARIES = frozenset({"torch", "numpy", "memest", "_pytest", "pytest", "tqdm", "PIL", "matplotlib", "wandb"})
_STANDARD = sysconfig.get_paths()["stdlib"]
_CONTAINERS = (dict, list, set, deque)
_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, type)


class Surroundings:
    """Found by walking from ``function`` and ``given`` (its arguments by name): each module, optimizer and tensor with the name it is found
    by. ``trained`` are the parameters of each optimizer, group by group."""

    def __init__(self, function: Any, given: Mapping[str, Any]) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.tensors: dict[int, tuple[str, torch.Tensor]] = {}
        self._seen: dict[int, Any] = {}
        self._holders: list[Any] = []
        self._torchs: set[int] = set()
        self.tables: list[Table] = []  # while what happens is to be undone
        self._cells: list[types.CellType] = []
        self._globals: list[tuple[dict[str, Any], tuple[str, ...]]] = []
        for name, value in given.items():
            self._visit(name, value)
        self._function(function, "")
        self._leave_inner()
        self.trained = {name: [list(g["params"]) for g in o.param_groups] for name, o in self.optimizers.items()}

    # the walk ------------------------------------------------------------------------------------------------------------

    def _visit(self, name: str, value: Any) -> None:
        if isinstance(value, _PLAIN) or id(value) in self._seen or len(self._seen) >= _MOST:
            return
        self._seen[id(value)] = value  # kept, so that no other object gets its id
        if isinstance(value, torch.Tensor):
            self.tensors[id(value)] = (name, value)
        elif isinstance(value, nn.Module):
            self.modules[_free(name or "model", self.modules)] = value
            for path, p in value.named_parameters():
                for hook in (*(p._backward_hooks or {}).values(), *(p._post_accumulate_grad_hooks or {}).values()):
                    self._visit(_joined(path, "hook"), hook)
            for path, module in list(value.named_modules()) if _is_users(type(value)) else ():
                for key, item in list(vars(module).items()):
                    if not key.startswith("_"):
                        self._visit(_joined(path, key), item)
        elif isinstance(value, torch.optim.Optimizer):
            self.optimizers[_free(name or "optimizer", self.optimizers)] = value
            if _is_users(type(value)):  # one that wraps another
                self._instance(name, value)
        elif isinstance(value, types.FunctionType | types.MethodType | partial):
            self._function(value, name)
        elif isinstance(value, Mapping):
            self._hold(value)
            for i, (key, item) in enumerate(list(value.items())):
                self._visit(_joined(name, i if isinstance(key, torch.Tensor) else key), item)
        elif isinstance(value, list | tuple | set | frozenset | deque):
            self._hold(value)
            for i, item in enumerate(list(value)):
                self._visit(_joined(name, i), item)
        elif isinstance(value, types.ModuleType):
            pass
        elif isinstance(value, torch.optim.lr_scheduler.LRScheduler | torch.amp.GradScaler):
            self._torchs |= {id(value.__dict__), *map(id, value.__dict__.values())}
            self._instance(name, value)
        elif _is_users(type(value)):
            self._instance(name, value)

    def _instance(self, name: str, value: Any) -> None:
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self._holders.append(attributes)
            for key, item in list(attributes.items()):
                self._visit(_joined(name, key), item)

    def _hold(self, value: Any) -> None:
        if isinstance(value, _CONTAINERS):
            self._holders.append(value)

    def _function(self, function: Any, name: str) -> None:
        if isinstance(function, partial):
            for i, value in enumerate(function.args):
                self._visit(_joined(name, i), value)
            for key, value in function.keywords.items():
                self._visit(key, value)
            self._function(function.func, name)
        elif isinstance(function, types.MethodType):
            self._visit("" if isinstance(function.__self__, nn.Module) else name, function.__self__)
            self._function(function.__func__, name)
        elif not isinstance(function, types.FunctionType):
            self._instance(name, function)
            call = inspect.getattr_static(type(function), "__call__", None)
            if isinstance(call, types.FunctionType):
                self._function(call, name)
        elif _is_users(function):
            self._body(function)

    def _body(self, function: types.FunctionType) -> None:
        code = function.__code__
        for free, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self._cells.append(cell)
            try:
                held = cell.cell_contents
            except ValueError:  # not bound yet
                continue
            self._visit(free, held)
        defaults = function.__defaults__ or ()
        for name, value in zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=False):
            self._visit(name, value)
        for name, value in (function.__kwdefaults__ or {}).items():
            self._visit(name, value)
        names = tuple(_names(code))
        space = function.__globals__
        self._globals.append((space, names))
        for name in names:
            if name in space:
                self._named(name, space[name], names)

    def _named(self, name: str, value: Any, names: Iterable[str]) -> None:
        """A global; of a module of the user's, what the code names of it."""
        if not isinstance(value, types.ModuleType):
            self._visit(name, value)
        elif not _is_library(value.__name__):
            for inner in names:
                if inner in vars(value):
                    self._visit(inner, vars(value)[inner])

    def _leave_inner(self) -> None:
        """Modules that are part of others go by those; tensors that are a module's are no tensors of their own."""
        inner = {id(m) for whole in self.modules.values() for m in whole.modules() if m is not whole}
        self.modules = {name: m for name, m in self.modules.items() if id(m) not in inner}
        for whole in self.modules.values():
            for t in (*whole.parameters(), *whole.buffers()):
                self.tensors.pop(id(t), None)

    # what is taken back --------------------------------------------------------------------------------------------------

    @contextmanager
    def as_they_were(self) -> Iterator[Callable[[], bool]]:
        """What happens inside to all that was found is undone after. Gives a function that says whether numbers, flags or texts of the
        user's changed (those of torch's own optimizers and schedulers decide nothing)."""
        self._remember()
        cells = [(cell, _content(cell)) for cell in self._cells]
        names = [(space, {n: space[n] for n in names if n in space}, names) for space, names in self._globals]

        def changed() -> bool:
            if any(plainly_changed(table.live, table.copy) for table in self.tables if id(table.live) not in self._torchs):
                return True
            now: list[tuple[dict[str, Any], dict[str, Any]]] = [({n: s[n] for n in ns if n in s}, copy) for s, copy, ns in names]
            now += [({"": _content(cell)}, {"": held}) for cell, held in cells]
            return any(plainly_changed(*pair) for pair in now)

        try:
            yield changed
        finally:
            for table in self.tables:
                table.put_back()
            self.tables.clear()  # another look at the same things counts who holds them
            for cell, held in cells:
                if _content(cell) is not held and held is not _EMPTY:
                    cell.cell_contents = held
            for space, copy, ns in names:
                for n in ns:
                    if n in copy and space.get(n) is not copy[n]:
                        space[n] = copy[n]
                    elif n in space and n not in copy:
                        del space[n]

    def _remember(self) -> None:
        """A copy of every table that code can write to."""
        live: list[Any] = [m.__dict__ for whole in self.modules.values() for m in whole.modules()]
        live += self._holders
        for o in self.optimizers.values():
            groups = (*o.param_groups, *(group["params"] for group in o.param_groups))
            live += [o.__dict__, o.param_groups, *groups, o.state]
            self._torchs |= {id(o.__dict__), *map(id, groups), *map(id, o.__dict__.values())}
        live += [v for table in live if isinstance(table, dict) for v in table.values() if type(v) in _CONTAINERS]
        self.tables = [Table(table) for table in {id(t): t for t in live}.values()]
        self._seen.clear()
        self._holders.clear()
        known = {id(table.live): table for table in self.tables}
        for table in self.tables:
            for value in table.copy.values() if isinstance(table.copy, dict) else table.copy:
                if id(value) in known:
                    known[id(value)].copies += 1

    def forget_abandoned(self) -> None:
        """Tables that the code has replaced by others, and that only our copies know, hold nothing alive any more."""
        for table in self.tables:
            if sys.getrefcount(table.live) <= table.copies + 2:  # the table's own, and the argument
                table.put_back()


class Table:
    """A dict, list, set or deque, and what was in it; ``copies`` of others hold it."""

    __slots__ = ("copies", "copy", "live")

    def __init__(self, live: Any) -> None:
        self.live = live
        self.copy = live.copy()
        self.copies = 0

    def put_back(self) -> None:
        """What was in it is in it again."""
        if not same(self.live, self.copy):
            put_back(self.live, self.copy)


_EMPTY = object()


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that a function's code and the functions in it look up."""
    yield from dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def is_step(value: Any) -> bool:
    """Whether ``value`` is a function that trains a step, or calls a module it finds: it speaks of ``backward`` or an ``autograd``, or it
    takes arguments and uses modules. (A function that makes a module does neither.)"""
    if not isinstance(value, types.FunctionType | types.MethodType):
        return False
    if _speaks_of_gradients(value, 3):
        return True
    given = inspect.signature(value).parameters.values()
    needs = any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in given)
    return needs and bool(Surroundings(value, {}).modules)


def _speaks_of_gradients(function: Any, depth: int) -> bool:
    """The function, a function of the user's that it names, or one that it wraps."""
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType) or not _is_users(function):
        return False
    names = tuple(_names(function.__code__))
    if {"backward", "autograd"} & set(names):
        return True
    others = [function.__globals__.get(n) for n in names] + [_content(c) for c in function.__closure__ or ()]
    return depth > 0 and any(_speaks_of_gradients(other, depth - 1) for other in others)


def _is_users(value: Any) -> bool:
    """Whether a function or a class is of the user's code: of no library that has no modules of his."""
    name = getattr(value, "__module__", None)
    return isinstance(name, str) and not _is_library(name)


def _is_library(name: str) -> bool:
    root = name.partition(".")[0]
    if root not in sys.stdlib_module_names:
        return root in _LIBRARIES
    file = getattr(sys.modules.get(name), "__file__", None)  # a file of the user's may be called test.py
    return root != "__main__" and (file is None or file.startswith(_STANDARD))


def _free(name: str, taken: Mapping[str, Any]) -> str:
    found, n = name, 2
    while found in taken:
        found, n = f"{name}_{n}", n + 1
    return found


def _joined(name: str, key: Any) -> str:
    text = key if isinstance(key, str) else str(key)
    text = "".join(c if c.isalnum() or c in "_." else "_" for c in text)[:40]
    return f"{name}.{text}" if name else text
