"""Convolutions that wrap another primitive: ``ip:any`` (an inner product) and ``jit_uni_ncsp`` (a channels-last convolution).

``ip:any`` takes convolutions whose kernel covers the whole input. ``jit_uni_ncsp`` takes data pinned to a plain layout, converts it to
channels-last and runs the best convolution for that. Both need AVX-512. Free formats never count as plain, so ``jit_uni_ncsp`` is left with
channels-last data that is plain at the same time (one channel, or one pixel), for which every earlier implementation has already refused:
the wrapped convolution is the gemm or the reference.

Not modelled: ``ip:any`` with blocks spanning more than 2**31 bytes, or with the blocked weights of forward inference; ``jit_uni_ncsp`` of
1x1 convolutions, which would wrap a matrix multiplication but are taken by earlier implementations.

Sources: oneDNN v3.12 src/cpu/x64/ip_convolution.cpp, matmul_inner_product.cpp, jit_uni_ncsp_convolution.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from memest.libraries.onednn import brgemm_inner, gemm
from memest.libraries.onednn.matmul import Product, brgemm_matmul, is_brgemm_matmul
from memest.libraries.onednn.problem import Convolution, Plan, channels_last_tag, layout
from memest.libraries.onednn.scratchpad import scratchpad_size
from memest.machines.cpu import Cpu

SMALL_KERNEL = 27


def inner_product_forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``ip:any`` forward: sources times transposed weights."""
    return _inner_product(problem, cpu, Product(m=problem.batch, n=problem.out_channels, k=_kernel_size(problem), transposed_b=True))


def inner_product_backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``ip:any`` backward by data: destination gradients times weights."""
    return _inner_product(problem, cpu, Product(m=problem.batch, n=_kernel_size(problem), k=problem.out_channels))


def inner_product_backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``ip:any`` backward by weights: transposed destination gradients times sources."""
    task = Product(m=problem.out_channels, n=_kernel_size(problem), k=problem.batch, transposed_a=True, reduced=problem.bias)
    return _inner_product(problem, cpu, task)


def forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``jit_uni_ncsp`` forward."""
    return _wrapped(problem, cpu, gemm.forward)


def backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``jit_uni_ncsp`` backward by data."""
    return _wrapped(problem, cpu, gemm.backward_data)


def backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``jit_uni_ncsp`` backward by weights."""
    return _wrapped(problem, cpu, gemm.backward_weights)


def _is_inner_product(problem: Convolution, cpu: Cpu) -> bool:
    return (
        cpu.isa == "avx512"
        and problem.groups == 1
        and prod(problem.kernel) > SMALL_KERNEL
        and max(problem.padding) == 0
        and max(*problem.stride, *problem.dilation) == 1
        and problem.batch > 1
        and max(problem.padding_end) <= 0
        and max(problem.output_size) == 1
    )


def _kernel_size(problem: Convolution) -> int:
    return problem.in_channels * prod(problem.kernel)


def _inner_product(problem: Convolution, cpu: Cpu, task: Product) -> Plan | None:
    """The inner product by the matrix product it is, or by a kernel of its own, as the release has it; None where it is none."""
    if not _is_inner_product(problem, cpu):
        return None
    task = replace(task, dtype=problem.dtype, release=problem.release)
    tag = channels_last_tag(problem.spatial_dims + 2)
    if is_brgemm_matmul(task):
        name, scratchpad = brgemm_matmul(task, cpu)
        name = name.removeprefix("brg") if problem.prop.startswith("forward") else name
        weights, scratchpad = layout(tag, problem.weights_dims, problem.itemsize), scratchpad_size(scratchpad)
    else:
        own = brgemm_inner.inner_product(problem, cpu)
        if own is None:
            return None
        name, (weights, scratchpad) = "brgemm", own
    return Plan(
        implementation=f"ip:any+{name}",
        source=layout(tag, problem.source_dims, problem.itemsize),
        weights=weights,
        destination=layout(tag, problem.destination_dims, problem.itemsize),
        scratchpad_bytes=scratchpad_size(scratchpad),
    )


def _wrapped(problem: Convolution, cpu: Cpu, wrapped: Callable[[Convolution, Cpu], Plan | None]) -> Plan | None:
    plain = problem.channels_last and _is_plain(problem.source_dims) and _is_plain(problem.destination_dims)
    if cpu.isa != "avx512" or not plain:
        return None
    inner = wrapped(problem, cpu) or gemm.reference(problem, cpu)
    scratchpad = scratchpad_size(inner.source.bytes, inner.destination.bytes, inner.scratchpad_bytes)
    return replace(inner, implementation=f"jit_uni_ncsp:conv+{inner.implementation}", scratchpad_bytes=scratchpad)


def _is_plain(dims: tuple[int, ...]) -> bool:
    """Whether channels-last data of these dims is also plain: nothing to interleave."""
    return dims[1] == 1 or max(dims[2:]) == 1
