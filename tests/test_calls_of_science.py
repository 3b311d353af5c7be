"""Calls of statistics, spectra and linear algebra, and some that few networks make: whole steps, whose streams are torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu
from validation.steps import Case, compare

A, B, V, W = (3, 4), (3, 4), (4,), (3,)
SQUARE, BATCH, SIGNAL = (4, 4), (6, 3, 3), (2, 64)
TALL, WIDE = (2, 7, 3), (2, 3, 7)
CALLS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "cov": (lambda a: torch.cov(a), (A,)),
    "corrcoef": (lambda a: torch.corrcoef(a), (A,)),
    "trapezoid": (lambda a: torch.trapezoid(a, dx=0.5) + torch.cumulative_trapezoid(a, dim=0).sum(), (A,)),
    "trapezoid of places": (lambda a, b: torch.trapezoid(a, b, dim=1) + torch.cumulative_trapezoid(a, b).sum(), (A, B)),
    "diff": (lambda a, b: torch.diff(a, n=2, prepend=b), (A, B)),
    "tensordot of vectors": (lambda a, b: torch.tensordot(a.t(), b.t(), dims=([0, 1], [0, 1])), (A, B)),
    "repeat": (lambda v: v.repeat(2, 3, 1), (V,)),
    "sums to sizes": (lambda a: a.sum_to_size(3, 1) * a.unsafe_chunk(2, 1)[0], (A,)),
    "float_power": (lambda a, b: torch.float_power(a, b).float(), (A, B)),
    "counts": (lambda a: a * torch.count_nonzero(a, dim=1).unsqueeze(1), (A,)),
    "rounded": (lambda a: a.round(decimals=2) + a.conj(), (A,)),
    "block_diag": (lambda a, v: torch.block_diag(a, v), (A, V)),
    "vectors": (lambda a, v, w: torch.addmv(w, a, v).sum() + torch.addr(a, w, v) + torch.vdot(v, v), (A, V, W)),
    "logdet": (lambda m: torch.logdet(m @ m.t() + torch.eye(4)), (SQUARE,)),
    "slogdet": (lambda m: torch.linalg.slogdet(m)[1], (BATCH,)),
    "upper": (lambda m: torch.linalg.cholesky(m @ m.t() + torch.eye(4), upper=True), (SQUARE,)),
    "eigh": (lambda m: sum(t.sum() for t in torch.linalg.eigh(m + m.mT)), (BATCH,)),
    "eigenvectors": (lambda m: torch.linalg.eigh(m)[1], (SQUARE,)),
    "eigvalsh": (lambda m: torch.linalg.eigvalsh(m), (BATCH,)),
    "svd": (lambda a: sum(t.sum() for t in torch.linalg.svd(a, full_matrices=False)), (TALL,)),
    "right vectors": (lambda a: torch.linalg.svd(a, full_matrices=False)[2], (WIDE,)),
    "right vectors of many rows": (lambda a: torch.linalg.svd(a, full_matrices=False)[2], (TALL,)),
    "svd of all": (lambda m: sum(t.sum() for t in torch.linalg.svd(m)), (BATCH,)),
    "qr": (lambda a, b: sum(t.sum() for m in (a, b) for t in torch.linalg.qr(m)), (TALL, WIDE)),
    "qr's parts": (lambda a, b: torch.linalg.qr(a)[1].sum() + torch.linalg.qr(b)[1].sum(), (TALL, WIDE)),
    "pinv": (lambda a, b: torch.linalg.pinv(a).sum() + torch.linalg.pinv(b).sum(), (TALL, WIDE)),
    "triangles": (lambda m, b: torch.linalg.solve_triangular(m, torch.cholesky_solve(b, m), upper=False), (BATCH, (6, 3, 2))),
    "whitening": (lambda m: torch.cholesky_inverse(torch.linalg.cholesky(m @ m.mT + torch.eye(3))), (BATCH,)),
    "stft": (lambda s: torch.stft(s, 16, 4, window=torch.ones(12), win_length=12, return_complex=True).abs(), (SIGNAL,)),
    "stft of all": (lambda s: torch.stft(s, 16, center=False, onesided=False, return_complex=True).abs(), (SIGNAL,)),
    "istft": (lambda s: torch.istft(torch.stft(s, 16, return_complex=True), 16, length=60), (SIGNAL,)),
    "istft of one": (
        lambda s: torch.istft(torch.stft(s[0], 16, 5, 12, torch.hann_window(12), return_complex=True), 16, 5, 12, torch.hamming_window(12)),
        (SIGNAL,),
    ),
    "windows": (
        lambda v: v * torch.bartlett_window(4) + torch.blackman_window(4) * torch.kaiser_window(4, periodic=False),
        (V,),
    ),
    "weights of positives": (
        lambda a: F.binary_cross_entropy_with_logits(a.bfloat16(), torch.ones(3, 4).bfloat16(), pos_weight=torch.ones(4)),
        (A,),
    ),
    "products as they lie": (lambda a: torch.cumprod(a.t(), 1), (A,)),
    "pooled in one dim": (lambda s: F.max_unpool1d(*F.max_pool1d(s, 2, return_indices=True), 2), (SIGNAL,)),
    "fft": (lambda s: torch.fft.fft(s).abs(), (SIGNAL,)),
    "windows that overlap": (lambda s: s.as_strided((2, 13, 16), (64, 4, 1)), (SIGNAL,)),
    "bags": (lambda a: F.embedding_bag(torch.zeros(5, 2, dtype=torch.int64), a, mode="mean"), (A,)),
    "bilinear": (lambda a, b: F.bilinear(a, b, torch.ones(5, 4, 4)), (A, B)),
    "margins": (lambda a: F.multilabel_soft_margin_loss(a, torch.ones(3, 4)) + F.soft_margin_loss(a, torch.ones(3, 4)), (A,)),
}


@pytest.mark.parametrize("name", CALLS)
def test_streams_are_those_of_torch(name: str, cpu: Cpu) -> None:
    function, shapes = CALLS[name]
    tensors = [torch.rand(s).requires_grad_() for s in shapes]

    def step(*given: Any) -> None:
        made = function(*given)
        (made * made).sum().backward()
        for t in given:
            t.grad = None

    outcome = compare(Case(step, tensors, []), cpu)
    assert not outcome.failed, str(outcome.difference)


def test_what_has_no_rule_is_refused_by_name() -> None:
    def weighed(a: Any) -> None:
        torch.cov(a, aweights=torch.ones(4))

    with pytest.raises(UnsupportedError, match=r"torch\.cov with weights"):
        memest.step(weighed, torch.rand(A))

    def spread(a: Any) -> None:
        a.as_strided((3, 4, 2), (4, 1, 0)).sum().backward()

    with pytest.raises(UnsupportedError, match="as_strided with a stride of 0"):
        memest.step(spread, torch.rand(A, requires_grad=True))
