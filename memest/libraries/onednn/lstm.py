"""What oneDNN needs beside its operands for one layer of an LSTM in float32, one direction of it: weights laid anew, the workspace that
training keeps, and scratchpads.

Training, forward and backward, runs plain gemms on weights whose rows lie apart as gemm likes it; inference runs brgemm on weights cut
into blocks of output channels. The workspace and the scratchpad are spaces that begin at pages.

Sources: oneDNN v3.12 src/cpu/rnn/rnn_utils.hpp (``init_conf``, ``set_workspace_sizes``), rnn_utils.cpp (``get_good_ld``, ``set_offsets``,
``set_expected_desc``), ref_rnn.cpp (``init_scratchpad``), src/cpu/x64/rnn/rnn_brgemm_utils.cpp (``configure_brgemm``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from memest.libraries.onednn.rounding import round_up
from memest.libraries.onednn.scratchpad import ALIGNMENT, PAGE_BYTES, scratchpad_size
from memest.machines.cpu import Cpu

FLOAT_BYTES = 4
POINTER_BYTES = 8
BATCH_ELEMENT_BYTES = 40  # brgemm_batch_element_t
GATES = 4
LINE_FLOATS = 16
MERGED_BATCH = 128  # from there on the gemms of the layer's input are not made one


class Buffers(NamedTuple):
    """Bytes that a call asks for, in this order: the weights of the input and of the state laid anew (0: they are read as they lie), and
    the scratchpad."""

    weights_layer: int
    weights_iter: int
    scratchpad: int


@dataclass(frozen=True, slots=True)
class Layer:
    """``steps`` of ``batch`` samples of ``inputs`` features, and a state of ``hidden`` ones."""

    steps: Any
    batch: Any
    inputs: Any
    hidden: Any

    @property
    def gates(self) -> Any:
        """Rows of the weights."""
        return GATES * self.hidden

    def workspace_bytes(self) -> Any:
        """What a forward that trains keeps for backward."""
        return _end(self._states(training=True))

    def _states(self, training: bool) -> list[Any]:
        """Gates, projected states, states, cells and the gradients of the last three, of all steps; inference holds two of them."""
        features = max(self.inputs, self.hidden)
        states = 2 * (self.steps + 1) * self.batch * FLOAT_BYTES
        wide, narrow = states * good_row(features), states * self.hidden
        if not training:
            return [0, 0, wide, narrow, 0, 0, 0, 0]
        step = self.steps * self.batch * FLOAT_BYTES
        return [step * good_row(self.gates), step * good_row(self.hidden), wide, narrow, wide, wide, narrow, 0]

    def _scratch(self, merged: bool, training: bool) -> list[Any]:
        """The gates of one step, or of all of them (``merged``), a state, and in training its gradient."""
        one = self.batch * FLOAT_BYTES
        state = one * good_row(self.hidden)
        return [one * good_row(self.gates) * (self.steps if merged else 1), state, state if training else 0, 0]

    def inference(self, cpu: Cpu) -> Buffers:
        """``brgemm``: output channels in blocks of two registers, of four where avx2 has one sample."""
        block = 32 if cpu.isa == "avx512" or self.batch == 1 else 16
        merged = self.batch == 1 and self.steps >= 2
        blocked = GATES * round_up(self.hidden, block) * FLOAT_BYTES
        space = _end([*self._states(training=False), *self._scratch(merged, training=False)])
        pieces = 2 * (2 if self.inputs == self.hidden and not merged else 1)
        return Buffers(self.inputs * blocked, self.hidden * blocked, _scratchpad(space, pieces * cpu.threads * BATCH_ELEMENT_BYTES))

    def training(self) -> Buffers:
        """``ref`` forward: weights row by input feature."""
        space = _end(self._scratch(self.batch < MERGED_BATCH, training=True))
        return Buffers(*self._by_rows(), _scratchpad(space, 0))

    def _by_rows(self) -> tuple[Any, Any]:
        """Weights row by input feature; of one feature they lie so already."""
        row = good_row(self.gates) * FLOAT_BYTES
        return 0 if self.inputs == 1 else self.inputs * row, 0 if self.hidden == 1 else self.hidden * row

    def backward(self) -> Buffers:
        """``ref`` backward: weights row by output channel, as torch has them, but for rows that gemm does not like."""
        layer, iter = (0 if good_row(n) == n else self.gates * good_row(n) * FLOAT_BYTES for n in (self.inputs, self.hidden))
        return Buffers(layer, iter, _scratchpad(_end(self._scratch(True, training=True)), 0))

    def weight_gradients(self) -> tuple[Any, Any, Any]:
        """Bytes of the gradients as oneDNN writes them: of the input's weights, the state's, and the bias. Those of one feature are as
        torch has them, and apart from them all the same."""
        one = self.gates * FLOAT_BYTES
        layer, iter = (n or one for n in self._by_rows())
        return layer, iter, one


def good_row(size: Any) -> Any:
    """The step from row to row of ``size`` floats: whole cache lines, and no multiple of 256."""
    row = round_up(size, LINE_FLOATS)
    return row + LINE_FLOATS if row % 256 == 0 else row


def _end(spaces: list[Any]) -> Any:
    """Where the last of ``spaces`` ends, each of which begins at a page."""
    at: Any = 0
    for size in spaces:
        at = round_up(at, PAGE_BYTES) + size
    return at


def _scratchpad(space: Any, batches: Any) -> Any:
    """The space with room to begin at a page, four tables of pointers, and brgemm's batches."""
    return space + PAGE_BYTES + scratchpad_size(*[POINTER_BYTES] * 3, POINTER_BYTES * FLOAT_BYTES) + (batches + ALIGNMENT if batches else 0)
