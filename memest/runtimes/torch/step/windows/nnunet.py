"""Inference over a volume in overlapping windows that are added up, as nnU-Net's predictor does it.

The volume, the sums (float16, one plane a head) and the counts (float16) lie on the device, or on the host, which is the same on a CPU. A
second thread cuts windows out while the network runs; it is taken to be ``ahead`` of it whenever the network is called. Variables live
as in nnU-Net's loop: a window and a prediction go when the next has taken their place. At the end the sums are divided by the counts and
looked through for infinities, which takes a copy of them and a bool each.

It runs under ``torch.inference_mode``, in which autocast keeps no casts of weights.

Windows have one size, so they hold the same bytes once the thread is ahead: more than ``ahead + MORE`` of them are played as so many.
A batch is the slices of one volume for a network of two axes, each with windows of its own, and 1 for one of three. The loop is that of
``validation/nnunet_prediction.py``.
Source: nnunetv2 2.8.1, inference/predict_from_raw_data.py (_internal_predict_sliding_window_return_logits).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from math import inf, prod

from memest.errors import UsageError
from memest.network.tensor import Shape, Spec, contiguous_strides, nbytes, spec
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.batches import sizes_at
from memest.runtimes.torch.step.recipe import SlidingWindow
from memest.runtimes.torch.step.run import Run
from memest.runtimes.torch.step.windows.tiles import per_dim, the_input
from memest.runtimes.torch.step.windows.variables import Variables

LEVER = "sliding_window"
SUMS = "float16"
MORE = 4


def play_sliding(run: Run, how: SlidingWindow) -> None:
    """One call over all windows; the sums stay as its result."""
    loop = _Loop(run, how)
    loop.play()
    run.caller.leave_autocast()


class _Loop:
    """The variables of nnU-Net's loop, each the holder of its value."""

    def __init__(self, run: Run, how: SlidingWindow) -> None:
        given = the_input(run, LEVER)
        volume = run.env[given.name]
        self.run, self.how, self.ledger, self.name = run, how, run.ledger, given.name
        self.window = per_dim(how.size, len(volume.shape) - 2, "size", LEVER)
        if len(self.window) > 2 and volume.shape[0] > 1:
            raise UsageError(f"{LEVER}: one volume at a time, as nnU-Net predicts; give a batch of 1")
        if any(axis >= len(self.window) for axis in how.mirror):
            raise UsageError(f"{LEVER}: mirror={max(how.mirror)} is no axis of an input with {len(self.window)} spatial dims (from 0)")
        self.cut = spec((1, volume.shape[1], *self.window), given.dtype)
        self.sizes = sizes_at(run, {given.name: self.cut.shape}, LEVER)
        self.here = how.inputs_here(run.recipe.target.on_cuda)
        self.ahead: deque[Value] = deque()
        self.variables = Variables(run, LEVER)

    def play(self) -> None:
        """Windows, the division, the check."""
        gaussian = self._importance()
        volume = self._padded()
        samples, extents = volume[0], volume[2:]
        count = samples * window_count(extents, self.window, self.how.step)
        most = self.how.ahead + MORE
        count = count if count < most else most
        begin = len(self.ledger.events)
        done = ready = 0
        while done < count:
            ready = self._fill(ready, count)
            self.variables.bind("workon", self.ahead.popleft() if self.ahead else self._window())
            ready = self._fill(max(ready, done + 1), count)
            prediction = self._predict(self.variables["workon"])
            if done == 0:
                self._make_sums(prediction, samples, extents, begin)
            self._add(prediction, gaussian)
            done = done + 1
        self._finish()

    def _importance(self) -> Value | None:
        """The Gaussian map, kept from the first volume on."""
        if not (self.how.gaussian and self.here):
            return None
        storage = self.ledger.resident(nbytes(self.window, SUMS), "buffer", f"{LEVER}.gaussian")
        return self.ledger.hold(Value(spec(self.window, SUMS), storage))

    def _padded(self) -> Shape:
        """The volume's shape, no smaller than a window: a padded copy is made where it is."""
        shape = self.run.env[self.name].shape
        extents = tuple(e if e > w else w for e, w in zip(shape[2:], self.window, strict=True))
        if self.here and any(w > e for e, w in zip(shape[2:], self.window, strict=True)):
            larger = spec((*shape[:2], *extents), self.cut.dtype)
            size = nbytes(larger.shape, larger.dtype)
            self.variables.bind("data", self.variables.allocate(larger, size, "pad", "the volume, padded to a window"))
        return (*shape[:2], *extents)

    def _window(self) -> Value:
        """One window, cut out."""
        size = nbytes(self.cut.shape, self.cut.dtype)
        return self.variables.allocate(self.cut, size, "clone", "a window, cut out of the volume")

    def _fill(self, ready: int, count: int) -> int:
        """The thread cuts windows out until it is ahead; how many there were so far."""
        while len(self.ahead) < self.how.ahead and ready < count:
            self.ahead.append(self._window())
            ready = ready + 1
        return ready

    def _predict(self, window: Value) -> Value:
        """The network's answer, averaged over mirrored windows; held."""
        prediction = self._network(window)
        dims = [axis + 2 for axis in self.how.mirror]
        mirrored = [c for n in range(len(dims)) for c in combinations(dims, n + 1)]
        for axes in mirrored:
            flipped = self.variables.made("flip", window, dims=axes)
            answer = self._network(flipped)
            self.ledger.let_go(flipped)
            back = self.variables.made("flip", answer, dims=axes)
            self.ledger.let_go(answer)
            self.variables.called("add", prediction, back, inplace=True)
            self.ledger.let_go(back)
        if mirrored:
            self.variables.called("div", prediction, None, value=len(mirrored) + 1, inplace=True)
        return prediction

    def _network(self, window: Value) -> Value:
        """One call; further outputs die."""
        outputs = self.variables.network(self.name, window, self.sizes)
        for other in outputs[1:]:
            self.ledger.let_go(other)
        if outputs[0].shape[2:] != self.cut.shape[2:]:
            given, made = list(self.cut.shape[2:]), list(outputs[0].shape[2:])
            raise UsageError(f"{LEVER}: a window of {given} gives {made}; they are added up where the sizes are the same")
        return outputs[0]

    def _make_sums(self, prediction: Value, samples: int, extents: Shape, begin: int) -> None:
        """Sums and counts: made before the first window, written down once the heads are known."""
        if not self.here:
            return
        events, before = self.ledger.events, len(self.ledger.events)
        self.variables.bind("sums", self.variables.made("zeros", shape=(prediction.shape[1], samples, *extents), dtype=SUMS))
        self.variables.bind("counts", self.variables.made("zeros", shape=(samples, *extents), dtype=SUMS))
        made = events[before:]
        del events[before:]
        events[begin:begin] = made

    def _add(self, prediction: Value, gaussian: Value | None) -> None:
        """``prediction *= gaussian``, ``sums[place] += prediction``, ``counts[place] += gaussian``; what was predicted before goes."""
        if not self.here:
            self.ledger.let_go(prediction)  # it moves to the host
            return
        self.variables.bind("prediction", prediction)
        flat = self.variables.seen(prediction, Spec(prediction.shape[1:], contiguous_strides(prediction.shape[1:]), prediction.spec.dtype))
        if gaussian is not None:
            self.variables.called("mul", flat, gaussian, inplace=True)
        sums, counts = self.variables["sums"], self.variables["counts"]
        heads, extents = sums.shape[0], sums.shape[2:]
        planes = contiguous_strides(extents)
        place = self.variables.seen(sums, Spec((heads, *self.window), (contiguous_strides(sums.shape)[0], *planes), SUMS))
        self.variables.called("add", place, flat, inplace=True)
        met = self.variables.seen(counts, Spec(self.window, planes, SUMS))
        self.variables.called("add", met, gaussian, inplace=True, **({} if gaussian is not None else {"value": 1}))
        for view in (flat, place, met):
            self.ledger.let_go(view)

    def _finish(self) -> None:
        """``div(sums, counts, out=sums)``, ``any(isinf(sums))``; then the loop's variables go, but for the sums."""
        if self.here:
            sums, counts = self.variables["sums"], self.variables["counts"]
            self.variables.called("div", sums, counts, inplace=True)
            size = self.variables.made("abs", sums)
            found = self.variables.made("eq", size, None, value=inf)
            self.ledger.let_go(size)
            some = self.variables.made("any", found)
            self.ledger.let_go(found)
            self.ledger.let_go(some)
        self.variables.end("sums")


def window_count(extents: Sequence[int], window: Sequence[int], step: Fraction) -> int:
    """How many windows a volume takes: along each dim those no further apart than ``step`` of them (compute_steps_for_sliding_window)."""
    apart = [(w * step.numerator, step.denominator) for w in window]
    return prod(((e - w) * parts + far - 1) // far + 1 for e, w, (far, parts) in zip(extents, window, apart, strict=True))
