"""Parameters that code makes while it is recorded: ``nn.Parameter(t)``, modules with it, in a step that trains them itself; and the old
``Variable(t)``.

torch tells nobody of these calls. They make another tensor on the same memory, as torch itself does of tensors of other kinds:
``t.detach()``, marked as a parameter. How parameters are filled is played call by call, but for what draws until all numbers fit.

Source: torch/nn/parameter.py (``Parameter.__new__``), torch/csrc/autograd/python_legacy_variable.cpp, torch/nn/init.py (from torch 2.12 on
``trunc_normal_`` draws so).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.autograd import Variable
from torch.nn import Parameter, init

from memest.errors import UnsupportedError
from memest.sources.importers.torch.tensors.live import LiveTensors


class Recorder(Protocol):
    """What is asked of the recorder."""

    live: LiveTensors

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""


@contextmanager
def telling(listener: Callable[[], Recorder | None]) -> Iterator[None]:
    """Parameters of tensors that this thread's ``listener`` follows are followed, too."""
    original: Any = Parameter.__new__
    fill, draws_again = init._no_grad_trunc_normal_, "any" in init._no_grad_trunc_normal_.__code__.co_names

    def new(cls: type[Parameter], data: Any = None, requires_grad: bool = True) -> Any:
        told = listener()
        if told is not None and data is None:
            data = torch.empty(0)
        if told is None or cls is not Parameter or told.live.found(data) is None:
            return original(cls, data, requires_grad)
        made = data.detach().requires_grad_(requires_grad)
        made._is_param = True
        return made

    def variable(cls: Any, data: Any = None, requires_grad: bool = False, *args: Any, **kwargs: Any) -> Any:
        told = listener()
        if told is None or told.live.found(data) is None:
            return super(Variable, cls).__new__(cls, data, requires_grad, *args, **kwargs)
        return data.detach().requires_grad_(requires_grad)

    def truncated(*args: Any, **kwargs: Any) -> Any:
        told = listener()
        if told is not None and draws_again:
            raise told.refusal("nn.init.trunc_normal_, which draws until all numbers fit: make and fill the parameters before the step")
        return fill(*args, **kwargs)

    Parameter.__new__, Variable.__new__ = new, variable
    init._no_grad_trunc_normal_ = truncated
    try:
        yield
    finally:
        Parameter.__new__ = original
        del Variable.__new__
        init._no_grad_trunc_normal_ = fill
