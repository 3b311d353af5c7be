"""Spectra of windows that slide over a signal, which ATen makes of other calls: written as :mod:`composed` says.

Sources: aten/src/ATen/native/SpectralOps.cpp (``stft``, ``istft``), TensorFactories.cpp (``hamming_window`` and its kin).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.sources.importers.torch.calls.composed_losses import Body


def _window(window: Any, n_fft: int, win_length: int, like: Any) -> Any:
    """As wide as the transform: zeros, in whose middle the window is copied, or ones stand."""
    if win_length >= n_fft:
        return window
    wide = torch.zeros(n_fft, dtype=like.dtype if window is None else window.dtype)
    middle = wide.narrow(0, (n_fft - win_length) // 2, win_length)
    if window is None:
        middle.fill_(1)
    else:
        middle.copy_(window)
    return wide


def _stft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Any:
    """Overlapping windows as one view, times the window, transformed along the last dim."""
    hop, width = n_fft // 4 if hop_length is None else hop_length, n_fft if win_length is None else win_length
    whole = window is not None and window.is_complex()
    signals = input.unsqueeze(0) if input.dim() == 1 else input
    wide = _window(window, n_fft, width, input)
    frames = 1 + (signals.shape[1] - n_fft) // hop
    by_signal, by_step = signals.stride()
    windows = signals.as_strided((signals.shape[0], frames, n_fft), (by_signal, hop * by_step, by_step))
    if wide is not None:
        windows = windows.mul(wide)
    if windows.is_complex():
        made = torch.fft.fft(windows, dim=2)
    elif onesided is False or whole:
        made = torch._fft_r2c(windows, (2,), 0, False)
    else:
        made = torch._fft_r2c(windows, (2,), 0, True)
    del windows
    turned = made.transpose(1, 2)
    found = turned.squeeze(0) if input.dim() == 1 else turned
    return found if return_complex else torch.view_as_real(found)


def _istft(
    input: Any,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Any:
    """Each spectrum transformed back, times the window, and laid over its neighbours; divided by what the windows sum to."""
    hop, width = n_fft // 4 if hop_length is None else hop_length, n_fft if win_length is None else win_length
    spectra = torch.view_as_real(input)
    spectra = spectra.unsqueeze(0) if input.dim() == 2 else spectra
    frames = spectra.shape[2]
    wide = torch.ones(width, dtype=spectra.dtype) if window is None else window
    if width != n_fft:
        left = (n_fft - width) // 2
        wide = torch.nn.functional.pad(wide, (left, n_fft - width - left))
    turned = torch.view_as_complex(spectra.transpose(1, 2))
    made = torch.fft.ifft(turned, dim=2) if return_complex else torch.fft.irfft(turned, n=n_fft, dim=2)
    weighed = made * wide.view(1, 1, n_fft)
    whole = n_fft + hop * (frames - 1)
    signals = torch.ops.aten.unfold_backward.default(weighed, (weighed.shape[0], whole), 1, n_fft, hop)
    wide = wide.pow(2)
    envelope = torch.ops.aten.unfold_backward.default(wide.expand(1, frames, n_fft), (1, whole), 1, n_fft, hop)
    start = n_fft // 2 if center else 0
    end = start + length if length is not None else whole - start
    signals, envelope = (t.narrow(1, start, min(end, whole) - start) for t in (signals, envelope))
    sizes = envelope.abs()
    least = sizes.min()
    lowest = least < 1e-11
    del least, sizes
    lowest.new_ones(())
    found = signals / envelope
    if end > whole:
        found = torch.nn.functional.pad(found, (0, end - whole))
    return found.squeeze(0) if input.dim() == 2 else found


# windows ----------------------------------------------------------------------------------------------------------------


def _ramp(length: int, periodic: bool, dtype: Any) -> tuple[Any, int]:
    """0, 1, 2 …, of one more where the window repeats."""
    size = length + 1 if periodic else length
    return torch.arange(size, dtype=dtype or torch.get_default_dtype()), size


def _made(shape: Callable[..., Any]) -> Body:
    """A window of a shape; one more, that is cut off, where it repeats."""

    def composed(
        window_length: int, periodic: bool = True, *args: Any, dtype: Any = None, requires_grad: bool = False, **named: Any
    ) -> Any:
        if window_length <= 1 or requires_grad:
            raise UnsupportedError("a window of one sample, or one that requires a gradient, has no rule: torch.ones(1) is modelled")
        numbers = {n: v for n, v in named.items() if n in ("alpha", "beta")}
        ramp, size = _ramp(window_length, periodic, dtype)
        made = shape(ramp, size, *args, **numbers)
        del ramp
        return made.narrow(0, 0, window_length) if periodic else made

    return composed


def _hamming(ramp: Any, size: int, alpha: float = 0.54, beta: float = 0.46) -> Any:
    return ramp.mul_(2 * math.pi / (size - 1)).cos_().mul_(-beta).add_(alpha)


def _bartlett(ramp: Any, size: int) -> Any:
    made, half = ramp.mul_(2 / (size - 1)), (size - 1) // 2 + 1
    made.narrow(0, half, size - half).mul_(-1).add_(2)
    return made


def _blackman(ramp: Any, size: int) -> Any:
    ramp.mul_(math.pi / (size - 1))
    fast = ramp.mul(4).cos_().mul_(0.08)
    slow = ramp.mul(2).cos_().mul_(0.5)
    apart = fast - slow
    return apart + 0.42


def _kaiser(ramp: Any, size: int, beta: float = 12.0) -> Any:
    return torch.empty(size, dtype=ramp.dtype)


SPECTRA: dict[str, Body] = {
    "stft": _stft,
    "istft": _istft,
    **dict.fromkeys(("hann_window", "hamming_window"), _made(_hamming)),
    "bartlett_window": _made(_bartlett),
    "blackman_window": _made(_blackman),
    "kaiser_window": _made(_kaiser),
}
