"""Plans of problems whose sizes are ``Dim``s: layouts keep their formulas, the scratchpad is a function of the sizes.

oneDNN's heuristics are searches, not formulas, so they are run on plain numbers. What comes back symbolic is exact as long as the
implementation and the layouts stay the same; that condition is recorded beside the comparisons of sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from memest.libraries.onednn.problem import Convolution, Layout, Plan, layout
from memest.machines.cpu import Cpu
from memest.sizes.dims import Dim, Opaque, contains_dim, expression, is_recording, plain, record

Planner = Callable[[Convolution, Cpu], Plan]
REMEMBERED = 256  # plans of one convolution kept for sizes that come again
_SIZES = ("batch", "in_channels", "out_channels", "input_size", "output_size", "padding", "padding_end", "kernel")


@dataclass(frozen=True, eq=False)
class Same:
    """A condition as a function of sizes: 1 where oneDNN chooses the implementation and layouts of ``plan``, else 0."""

    plan: Plan
    at: Callable[..., Plan]

    def __call__(self, *sizes: Any) -> int:
        return int(_form(self.at(*sizes)) == _form(self.plan))


def plan_of(planner: Planner, problem: Convolution, cpu: Cpu) -> Plan:
    """``planner(problem, cpu)``; where sizes are symbolic, the plan's bytes are too."""
    values = {name: getattr(problem, name) for name in _SIZES}
    if not contains_dim(tuple(values.values())):
        return planner(problem, cpu)
    fixed = replace(problem, **{name: plain(v) for name, v in values.items()})
    plan = planner(fixed, cpu)
    arguments = tuple(_expressions(v) for v in values.values())

    plans: dict[tuple[Any, ...], Plan] = {}

    def at(*sizes: Any) -> Plan:
        if sizes not in plans:
            if len(plans) >= REMEMBERED:
                plans.clear()
            plans[sizes] = planner(replace(fixed, **dict(zip(_SIZES, sizes, strict=True))), cpu)
        return plans[sizes]

    asked = (problem.kernel, problem.stride, problem.dilation, problem.groups, problem.bias, problem.channels_last)
    constants = (*asked, problem.dtype, problem.release)
    label = f"{problem.prop}{constants}"
    if is_recording():
        record(Opaque(f"same_{planner.__name__}_{label}_{_form(plan)}", Same(plan, at), arguments), 1)
    scratch = Dim(plan.scratchpad_bytes, Opaque(f"scratchpad_{planner.__name__}_{label}", lambda *s: at(*s).scratchpad_bytes, arguments))
    return Plan(
        implementation=plan.implementation,
        source=_symbolic(plan.source, fixed.source_dims, problem.source_dims, problem.itemsize),
        weights=_symbolic(plan.weights, fixed.weights_dims, problem.weights_dims, problem.itemsize),
        destination=_symbolic(plan.destination, fixed.destination_dims, problem.destination_dims, problem.itemsize),
        scratchpad_bytes=scratch,
    )


def _form(plan: Plan) -> tuple[str, str, str, str]:
    return plan.implementation, plan.source.tag, plan.weights.tag, plan.destination.tag


def _expressions(value: Any) -> Any:
    return tuple(_expressions(v) for v in value) if isinstance(value, tuple) else expression(value)


def _symbolic(given: Layout, numbers: tuple[int, ...], dims: tuple[int, ...], itemsize: int) -> Layout:
    if layout(given.tag, numbers, itemsize).bytes != given.bytes or not contains_dim(dims):
        return given
    return layout(given.tag, dims, itemsize)
