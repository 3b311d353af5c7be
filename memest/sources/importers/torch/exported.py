"""An exported program (``archives``) as a module that does its calls once more, so that they are recorded like any other's.

Each call is torch's own function of the operator's name, with the arguments that its schema says; it stands in the module whose code it
came from. A value dies after its last reader, as in the code that ``ExportedProgram.module()`` runs. Sizes that the program fixes stay
numbers; those it leaves open are symbols within its ranges.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from memest.errors import UnsupportedError, UsageError, one_of
from memest.sizes import asked
from memest.sizes.asked import TypedShape
from memest.sources.archives import DTYPES, FORMATS, Described, Program, read

PASSED = frozenset({"_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size", "_assert_async"})
"""Checks, which move nothing."""
PLACES = frozenset({"device", "layout", "pin_memory"})
"""Arguments that say where a tensor lies: where the network runs."""
NOT_TRAINING = "the program was decomposed for inference (run_decompositions): save it as torch.export.export gives it"


class Exported(nn.Module):
    """The module of a program, called with its inputs by position or name."""

    def __init__(self, program: Program, path: Path) -> None:
        super().__init__()
        self.program, self.path = program, path
        self._names: dict[str, str] = {}
        for p in (*program.parameters, *program.buffers):
            made = torch.empty([int(n) for n in p.sizes], dtype=getattr(torch, p.dtype), device="meta")
            home, _, name = p.path.rpartition(".")
            holder = self._holder(home)
            if p in program.parameters:
                holder.register_parameter(name, nn.Parameter(made, p.trainable))
            else:
                holder.register_buffer(name, made)
            self._names[p.name] = p.path
        self._calls = [_Call(node, self) for node in program.nodes if _name_of(node) not in PASSED]
        for call in self._calls:
            self._holder(call.home)
        self._dies = self._last_readers()

    def _holder(self, path: str) -> nn.Module:
        """The module at ``path``, made where there is none."""
        module: nn.Module = self
        for part in filter(None, path.split(".")):
            found = module._modules.get(part)
            if found is None:
                found = module._modules[part] = _Holder()
            module = found
        return module

    def _last_readers(self) -> list[list[str]]:
        """What dies after each call."""
        last = {name: i for i, call in enumerate(self._calls) for name in (*call.gives, *call.reads)}
        for output in self.program.outputs:
            for name in _names_in(output):
                last.pop(name, None)
        found: list[list[str]] = [[] for _ in self._calls]
        for name, i in last.items():
            found[i].append(name)
        return found

    def example(self, given: Any) -> dict[str, Any]:
        """Shapes by the names of the inputs, with the program's dtypes; UsageError for sizes that it does not take."""
        names = [i.name for i in self.program.inputs]
        shapes = asked.by_name(names, given)
        for name in shapes:
            if name not in names:
                raise UsageError(f"{self.path} has no input {name!r}{one_of(name, names)}")
        missing = next((i for i in self.program.inputs if i.name not in shapes), None)
        if missing is not None:
            raise UsageError(f"{self.path} needs --input {missing.name}=SHAPE, too; its shape is {_shown(missing.sizes)}")
        return {i.name: self._fitting(i, shapes[i.name]) for i in self.program.inputs}

    def _fitting(self, i: Described, given: Any) -> TypedShape:
        shape = tuple(given.shape) if asked.is_tensor(given) else asked.shape(given)
        fits = len(shape) == len(i.sizes) and all(isinstance(n, str) or n == m for n, m in zip(i.sizes, shape, strict=True))
        if not fits:
            way = "export it with dynamic_shapes to ask about other sizes"
            raise UsageError(f"{self.path}: input {i.name!r} is {_shown(i.sizes)}, got {_shown(shape)}; {way}")
        return TypedShape(shape, i.dtype)

    @property
    def own_shapes(self) -> dict[str, tuple[int, ...]] | None:
        """The shapes of its inputs, where the program fixes all."""
        sizes = {i.name: tuple(n for n in i.sizes if isinstance(n, int)) for i in self.program.inputs}
        return sizes if all(len(sizes[i.name]) == len(i.sizes) for i in self.program.inputs) else None

    @property
    def fixed(self) -> dict[str, frozenset[int]]:
        """The dims of each input that are numbers."""
        return {i.name: frozenset(d for d, n in enumerate(i.sizes) if isinstance(n, int)) for i in self.program.inputs}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The program's calls, in order."""
        names = [i.name for i in self.program.inputs]
        env: dict[str, Any] = {**self.program.constants, **dict(zip(names, args, strict=False)), **kwargs}
        del args, kwargs
        self._check_ranges(env)
        for call, dying in zip(self._calls, self._dies, strict=True):
            found = self._holder(call.home)
            env.update(found(call, env) if isinstance(found, _Holder) else call(env))
            for name in dying:
                env.pop(name, None)
        results = [self.value(output, env) for output in self.program.outputs]
        return results[0] if len(results) == 1 else tuple(results)

    def _check_ranges(self, env: Mapping[str, Any]) -> None:
        """Sizes are compared with their ranges, which makes those conditions of the network."""
        for i in self.program.inputs:
            for d, size in enumerate(i.sizes):
                low, high = self.program.ranges.get(str(size), (0, None))
                n = env[i.name].shape[d] if isinstance(size, str) else None
                if n is not None and (n < low or (high is not None and n > high)):
                    raise ValueError(f"size {d} of {i.name!r} was exported for {low} to {high or 'any'}, got {int(n)}")

    def value(self, argument: Mapping[str, Any], env: Mapping[str, Any]) -> Any:
        """What an argument of a call stands for."""
        ((kind, given),) = argument.items()
        if kind == "as_none":
            return None
        if kind in ("as_tensor", "as_optional_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
            return self._named(given, env)
        if kind in ("as_tensors", "as_optional_tensors", "as_sym_ints", "as_sym_floats"):
            return [self._named(part, env) for part in given]
        if kind == "as_scalar_type":
            return getattr(torch, DTYPES[given])
        if kind == "as_memory_format":
            return getattr(torch, FORMATS[given])
        if kind in ("as_layout", "as_device"):
            return None
        if kind in ("as_float", "as_floats"):  # what JSON has no number for is a text: -Infinity
            return float(given) if kind == "as_float" else [float(n) for n in given]
        if kind in ("as_int", "as_ints", "as_bool", "as_bools", "as_string", "as_strings"):
            return given
        raise UnsupportedError(f"{self.path}: no rule for an argument {kind.removeprefix('as_')!r} of a call")

    def _named(self, given: Mapping[str, Any], env: Mapping[str, Any]) -> Any:
        """A tensor or a number by its name, or the number itself."""
        if "as_none" in given:
            return None
        given = given.get("as_tensor", given)
        name = given.get("name", given.get("as_name"))
        if name is None:
            return next(iter(given.values()))
        if name in env:
            return env[name]
        module_path, _, own = self._names[name].rpartition(".")
        return getattr(self._holder(module_path), own)


class _Holder(nn.Module):
    """A module of the code that was exported: calls of it run inside."""

    def forward(self, call: Callable[[Mapping[str, Any]], Any], env: Mapping[str, Any]) -> Any:
        """The call, in this module."""
        return call(env)


class _Call:
    """One call of the program: ``home`` is the path of its module, ``reads`` and ``gives`` are names."""

    def __init__(self, node: Mapping[str, Any], program: Exported) -> None:
        self._node, self._program = node, program
        self.home = _home(node)
        self.reads = [name for given in node["inputs"] for name in _names_in(given["arg"])]
        self._outputs = [_names_in(output) for output in node["outputs"]]
        self.gives = [name for names in self._outputs for name in names]
        self._run = _function(node, program.path)

    def __call__(self, env: Mapping[str, Any]) -> dict[str, Any]:
        """What it gives, by name."""
        given = [(i["name"], self._program.value(i["arg"], env)) for i in self._node["inputs"]]
        result = self._run(given)
        if len(self._outputs) == 1 and "as_tensors" not in self._node["outputs"][0]:
            return {self.gives[0]: result} if self.gives else {}
        return dict(zip(self.gives, result, strict=False))


def of_file(path: Path) -> Exported:
    """The program in an archive, as a module."""
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    return Exported(read(path), path)


def _names_in(argument: Mapping[str, Any]) -> list[str]:
    """The names that an argument speaks of."""
    ((kind, given),) = argument.items()
    parts = given if isinstance(given, list) else [given]
    if kind == "as_optional_tensors":
        parts = [p["as_tensor"] for p in parts if "as_tensor" in p]
    named = (
        "as_tensor",
        "as_tensors",
        "as_optional_tensors",
        "as_optional_tensor",
        "as_sym_int",
        "as_sym_ints",
        "as_sym_float",
        "as_sym_bool",
    )
    return [str(p.get("name", p.get("as_name"))) for p in parts if "name" in p or "as_name" in p] if kind in named else []


def _home(node: Mapping[str, Any]) -> str:
    """The path of the innermost module that a call stands in: ``L__self__bn1,bn1,torch.nn.…`` has the second."""
    stack = node.get("metadata", {}).get("nn_module_stack", "")
    return stack.rpartition(";")[2].split(",")[1] if stack.count(",") >= 2 else ""


def _name_of(node: Mapping[str, Any]) -> str:
    """``conv2d`` of ``torch.ops.aten.conv2d.default``."""
    parts = str(node["target"]).split(".")
    return parts[3] if len(parts) == 5 and parts[:3] == ["torch", "ops", "aten"] else ""


def _function(node: Mapping[str, Any], path: Path) -> Callable[[Sequence[tuple[str, Any]]], Any]:
    """What runs a call, given its arguments by name in order."""
    target = str(node["target"])
    if target.startswith("_operator."):
        plain = getattr(operator, target.removeprefix("_operator."))
        return lambda given: plain(*(value for _, value in given))
    name = _name_of(node)
    overload = getattr(getattr(torch.ops.aten, name, None), target.rpartition(".")[2], None) if name else None
    if overload is None:
        raise UnsupportedError(f"{path}: no rule for {target.removeprefix('torch.ops.')} in the exported program")
    function = OWN.get(name) or DECOMPOSED.get(name) or _of_torch(name)
    if function is None:
        raise UnsupportedError(f"{path}: no rule for aten.{name} in the exported program")
    schema = [(a.name, a.kwarg_only, a.default_value) for a in overload._schema.arguments]

    def run(given: Sequence[tuple[str, Any]]) -> Any:
        values = dict(given)
        last = max((i for i, (n, keyword, _) in enumerate(schema) if n in values and not keyword), default=-1)
        positional = [values.get(n, default) for n, keyword, default in schema[: last + 1] if not keyword]
        named = {n: values[n] for n, keyword, _ in schema if keyword and n in values and n not in PLACES}
        return function(*positional, **named)

    return run


def _of_torch(name: str) -> Any:
    """torch's function that calls the operator with its own arguments."""
    for home in (torch, torch._C._nn, torch.Tensor, torch._C._linalg, torch._C._fft, torch._C._special):
        found = getattr(home, name, None)
        if callable(found):
            return found
    return None


def _sliced(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    end = None if isinstance(end, int) and end >= 2**63 - 1 else end
    return x[(*[slice(None)] * (dim % x.ndim), slice(start, end, step))]


def _indexed(x: Any, indices: Sequence[Any]) -> Any:
    return x[tuple(slice(None) if i is None else i for i in indices)]


def _full_like(x: Any, value: Any, memory_format: Any = None, **how: Any) -> Any:
    others = {} if memory_format in (None, torch.preserve_format) else {"memory_format": memory_format}
    return torch.full_like(x, value, **how, **others)


def _upsampled(mode: str) -> Callable[..., Any]:
    def run(x: Any, size: Any, *rest: Any) -> Any:
        corners = {"align_corners": rest[0]} if mode != "nearest" and mode != "nearest-exact" else {}
        factors = rest[-1]
        return functional.interpolate(x, size=size, scale_factor=factors, mode=mode, **corners)

    return run


def _convolved(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, output_padding: Any, groups: int
) -> Any:
    d = weight.ndim - 2
    if transposed:
        return getattr(torch, f"conv_transpose{d}d")(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return getattr(torch, f"conv{d}d")(x, weight, bias, stride, padding, dilation, groups)


def _with_unread(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that drops what else the operator gives as soon as it has it, as the program does: nobody reads that in inference."""
    return lambda *args, **kwargs: (function(*args, **kwargs), None, None)


def _batch_normed(x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float) -> Any:
    return torch.batch_norm(x, weight, bias, mean, var, False, momentum, eps, True)


def _group_normed(x: Any, weight: Any, bias: Any, n: int, c: int, inner: int, groups: int, eps: float) -> Any:
    return torch.group_norm(x, groups, weight, bias, eps)


def _attended(q: Any, k: Any, v: Any, dropout: float = 0.0, causal: bool = False, *, attn_mask: Any = None, scale: Any = None) -> Any:
    return functional.scaled_dot_product_attention(q, k, v, attn_mask, dropout, causal, scale=scale)


DECOMPOSED: dict[str, Callable[..., Any]] = {  # operators that run_decompositions() puts in the places of those that users call
    "convolution": _convolved,
    "_native_batch_norm_legit_no_training": _with_unread(_batch_normed),
    "native_layer_norm": _with_unread(torch.layer_norm),
    "native_group_norm": _with_unread(_group_normed),
    **{f"max_pool{d}d_with_indices": _with_unread(getattr(torch, f"max_pool{d}d")) for d in (2, 3)},
    "_scaled_dot_product_flash_attention_for_cpu": _with_unread(_attended),
    "_softmax": lambda x, dim, half: torch.softmax(x, dim),
    "_log_softmax": lambda x, dim, half: torch.log_softmax(x, dim),
    "_adaptive_avg_pool2d": functional.adaptive_avg_pool2d,
    "_adaptive_avg_pool3d": functional.adaptive_avg_pool3d,
    "constant_pad_nd": lambda x, pad, value=0: functional.pad(x, pad, value=value),
    **{f"reflection_pad{d}d": lambda x, pad: functional.pad(x, pad, mode="reflect") for d in (1, 2, 3)},
    **{f"replication_pad{d}d": lambda x, pad: functional.pad(x, pad, mode="replicate") for d in (1, 2, 3)},
}
OWN: dict[str, Callable[..., Any]] = {  # operators that a user writes otherwise
    "sym_size": lambda x, dim: x.shape[dim],
    "sym_numel": lambda x: x.numel(),
    "slice": _sliced,
    "index": _indexed,
    "to": torch.Tensor.to,
    "_to_copy": torch.Tensor.to,
    "expand": torch.Tensor.expand,
    "view": torch.Tensor.view,
    "lift_fresh_copy": torch.clone,
    "alias": lambda x: x,
    "fill_": lambda x, value: x.copy_(value) if isinstance(value, torch.Tensor) else x.fill_(value),  # aten/src/ATen/native/Fill.cpp
    "full_like": _full_like,
    **{f"upsample_nearest{d}d": _upsampled("nearest") for d in (1, 2, 3)},
    "upsample_linear1d": _upsampled("linear"),
    "upsample_bilinear2d": _upsampled("bilinear"),
    "upsample_trilinear3d": _upsampled("trilinear"),
    "upsample_bicubic2d": _upsampled("bicubic"),
}


def _shown(sizes: Sequence[int | str]) -> str:
    return "x".join("N" if isinstance(n, str) else str(n) for n in sizes)
