"""Selective checkpoints (``create_selective_checkpoint_contexts``): which operators' results the policy keeps, asked as calls are recorded.

torch asks its policy of every operator of ATen that a call comes to. On meta tensors a call comes to the same operators as on a CPU (but
for attention), so there the policy is asked as torch does; what it keeps is said in our own operators' names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.utils.checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

from memest.errors import UnsupportedError
from memest.network.graph import Layer

ROWS = {  # operators of ATen under the names of our rows
    "native_batch_norm": "batch_norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "_scaled_dot_product_flash_attention_for_cpu": "_flash_attention",
}
ATEN = {row: name for name, row in ROWS.items()}
PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm", "mv", "convolution", "_flash_attention", "_safe_softmax"})
"""Rows by which it shows that a call comes to other operators on meta tensors."""


Seen = tuple[Any, Any, Any, Any]
"""An operator of ATen that ran: itself, what it was given, plainly and by name, and what it gave."""


class Recorder(Protocol):
    """What is asked of the recorder."""

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""


class Calls:
    """The rows that one call runs, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def begin(self, layer: Layer) -> None:
        """A layer is about to run."""
        self.names.clear()

    def chosen(self, row: str) -> None:
        """Nothing is kept while a forward is recorded."""
        self.names.append(row)


class Policy:
    """The policy of one checkpoint."""

    def __init__(self, recorder: Recorder, function: Callable[..., Any]) -> None:
        self._recorder, self._function = recorder, function
        self._open: list[list[Seen]] = []
        self._ran: list[Seen] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What runs is what the policy is asked about, by :meth:`chosen` then. What hooks of saved tensors do amid a call is apart."""
        self._open.append([])
        with _Watching(self._open):
            yield
        self._ran = self._open.pop()

    def chosen(self, rows: Sequence[str]) -> tuple[tuple[str, int], ...]:
        """Which of the ``rows`` that a call ran are kept: their names, and how often each ran before."""
        seen = [call for call in self._ran if call[0] not in torch.utils.checkpoint.SAC_IGNORED_OPS]
        self._ran = []
        here, there = (Counter(n for n in names if n in PRODUCTS) for names in (rows, (_row_of(func) for func, *_ in seen)))
        if not seen or here != there:  # autocast, attention, products that are folded where a gradient is wanted
            seen = [self._operator(row) for row in rows]
        ran, before, found = Counter(rows), Counter[str](), []
        for func, args, kwargs, out in seen:
            row = _row_of(func)
            nth = before[row]
            before[row] += 1
            if not self._keeps(func, args, kwargs, out):
                continue
            if nth >= ran[row] or func._schema.is_mutable or _takes_a_number(func, args):
                raise self._recorder.refusal(
                    f"a selective checkpoint that keeps the result of {func} here (in place, of a number, or part of another operator): let"
                    " its policy recompute that"
                )
            found.append((row, nth))
        return tuple(found)

    def check_inference(self) -> None:
        """Refuse what torch refuses: to keep a result of inference mode, which counts no versions."""
        seen, self._ran = self._ran, []
        kept = next((call[0] for call in seen if call[0] not in torch.utils.checkpoint.SAC_IGNORED_OPS and self._keeps(*call)), None)
        if kept is not None:
            raise self._recorder.refusal(
                f"a selective checkpoint that keeps the result of {kept} under torch.inference_mode (so says torch): take torch.no_grad"
            )

    def _keeps(self, func: Any, args: Any, kwargs: Any, out: Any) -> bool:
        """What the policy says, asked as torch does."""
        context = torch.utils.checkpoint.SelectiveCheckpointContext(is_recompute=False)
        context.op_output = out
        try:
            said = self._function(context, func, *args, **kwargs)
        except Exception as e:
            if args:
                raise
            raise self._recorder.refusal(
                f"a selective checkpoint whose policy looks at more than the operator, around {func} ({type(e).__name__})"
            ) from None
        policies = torch.utils.checkpoint.CheckpointPolicy
        return said if isinstance(said, bool) else said in (policies.MUST_SAVE, policies.PREFER_SAVE)

    def _operator(self, row: str) -> Seen:
        """The operator of a row, without what it is called with."""
        packet = getattr(torch.ops.aten, ATEN.get(row, row), None)
        if packet is None:
            raise self._recorder.refusal(
                f"a selective checkpoint around {row!r}, under autocast or in attention: let its policy recompute that"
            )
        overloads = packet.overloads()
        return getattr(packet, next((o for o in ("default", "Tensor") if o in overloads), overloads[0])), (), {}, None


class _Watching(TorchDispatchMode):
    def __init__(self, open: Sequence[list[Seen]]) -> None:
        super().__init__()
        self._open, self._seen = open, open[-1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self._open[-1] is self._seen:
            self._seen.append((func, args, kwargs or {}, out))
        return out


def _takes_a_number(func: Any, args: Sequence[Any]) -> bool:
    """Whether a number stands where a tensor may: it is wrapped into one."""
    given = zip(args, func._schema.arguments, strict=False)
    return any(isinstance(a, int | float) and str(s.type) == "Tensor" for a, s in given)


def _row_of(func: Any) -> str:
    name: str = func._schema.name.rpartition("::")[2]
    return ROWS.get(name, name)


def policy_of(contexts: Any) -> tuple[Callable[..., Any], bool] | None:
    """The policy behind a pair of contexts, and whether kept results may be written into; None where they are no selective ones."""
    caching = getattr(torch.utils.checkpoint, "_CachingTorchDispatchMode", ())
    if not isinstance(contexts, tuple | list) or len(contexts) != 2 or type(contexts[0]) is not caching:
        return None
    return contexts[0].policy_fn, bool(contexts[1].allow_cache_entry_mutation)
