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

from memest.errors import UnsupportedError
from memest.libraries.onednn import gemm
from memest.libraries.onednn.matmul import Product, brgemm_matmul, is_brgemm_matmul
from memest.libraries.onednn.problem import Convolution, Plan, channels_last_tag, layout
from memest.libraries.onednn.scratchpad import scratchpad_size
from memest.machines.cpu import Cpu

SMALL_KERNEL = 27


def inner_product_forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``ip:any`` forward: sources times transposed weights."""
    if not _is_inner_product(problem, cpu):
        return None
    task = Product(m=problem.batch, n=problem.out_channels, k=_kernel_size(problem), transposed_b=True)
    name, scratchpad = _multiplied(problem, task, cpu)
    return _inner_product_plan(problem, f"ip:any+{name.removeprefix('brg')}", scratchpad)


def inner_product_backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``ip:any`` backward by data: destination gradients times weights."""
    if not _is_inner_product(problem, cpu):
        return None
    name, scratchpad = _multiplied(problem, Product(m=problem.batch, n=_kernel_size(problem), k=problem.out_channels), cpu)
    return _inner_product_plan(problem, f"ip:any+{name}", scratchpad)


def inner_product_backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``ip:any`` backward by weights: transposed destination gradients times sources."""
    if not _is_inner_product(problem, cpu):
        return None
    task = Product(m=problem.out_channels, n=_kernel_size(problem), k=problem.batch, transposed_a=True, reduced=problem.bias)
    name, scratchpad = _multiplied(problem, task, cpu)
    return _inner_product_plan(problem, f"ip:any+{name}", scratchpad)


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
        and problem.batch > 1
        and max(problem.output_size) == 1
        and max(*problem.padding, *problem.padding_end) == 0
        and max(*problem.stride, *problem.dilation) == 1
        and prod(problem.kernel) > SMALL_KERNEL
    )


def _kernel_size(problem: Convolution) -> int:
    return problem.in_channels * prod(problem.kernel)


def _multiplied(problem: Convolution, task: Product, cpu: Cpu) -> tuple[str, int]:
    """The product's kernel and scratchpad, where the release does it by one; UnsupportedError where by a kernel of its own."""
    task = replace(task, dtype=problem.dtype, release=problem.release)
    if not is_brgemm_matmul(task):
        raise UnsupportedError(
            f"a convolution whose kernel of {list(problem.kernel)} covers its whole input is not modelled for torch with oneDNN "
            f"{problem.release[0]}.{problem.release[1]}: ask for torch 2.13 or later, or use a linear layer"
        )
    return brgemm_matmul(task, cpu)


def _inner_product_plan(problem: Convolution, name: str, matmul_scratchpad: int) -> Plan:
    tag = channels_last_tag(problem.spatial_dims + 2)
    return Plan(
        implementation=name,
        source=layout(tag, problem.source_dims, problem.itemsize),
        weights=layout(tag, problem.weights_dims, problem.itemsize),
        destination=layout(tag, problem.destination_dims, problem.itemsize),
        scratchpad_bytes=scratchpad_size(scratchpad_size(matmul_scratchpad)),
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
