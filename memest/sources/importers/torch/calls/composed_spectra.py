"""Spectra of windows that slide over a signal, which ATen makes of other calls: written as :mod:`composed` says.

Source: aten/src/ATen/native/SpectralOps.cpp (``stft``).
"""

from __future__ import annotations

from typing import Any

import torch

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


SPECTRA: dict[str, Body] = {"stft": _stft}
