"""``std::sort`` as GNU's C++ library has it: what is equal comes out in the order in which that leaves it, which a planner's result can
hang on.

Source: libstdc++, bits/stl_algo.h (``__introsort_loop``, ``__unguarded_partition_pivot``, ``__move_median_to_first``,
``__final_insertion_sort``) and bits/stl_heap.h (where the recursion goes too deep).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Less = Callable[[T, T], bool]
THRESHOLD = 16


def standard_sort(values: Sequence[T], less: Less[T]) -> list[T]:
    """The values in ascending order of ``less``."""
    found = list(values)
    if found:
        _introsort(found, 0, len(found), 2 * (len(found).bit_length() - 1), less)
        _insertion_sort(found, less)
    return found


def _introsort(v: list[T], first: int, last: int, depth: int, less: Less[T]) -> None:
    while last - first > THRESHOLD:
        if depth == 0:
            v[first:last] = _heap_sort(v[first:last], less)
            return
        depth -= 1
        cut = _partition(v, first, last, less)
        _introsort(v, cut, last, depth, less)
        last = cut


def _partition(v: list[T], first: int, last: int, less: Less[T]) -> int:
    _median_to_first(v, first, first + 1, first + (last - first) // 2, last - 1, less)
    pivot, low, high = first, first + 1, last
    while True:
        while less(v[low], v[pivot]):
            low += 1
        high -= 1
        while less(v[pivot], v[high]):
            high -= 1
        if low >= high:
            return low
        v[low], v[high] = v[high], v[low]
        low += 1


def _median_to_first(v: list[T], result: int, a: int, b: int, c: int, less: Less[T]) -> None:
    if less(v[a], v[b]):
        chosen = b if less(v[b], v[c]) else c if less(v[a], v[c]) else a
    else:
        chosen = a if less(v[a], v[c]) else c if less(v[b], v[c]) else b
    v[result], v[chosen] = v[chosen], v[result]


def _insertion_sort(v: list[T], less: Less[T]) -> None:
    guarded = min(len(v), THRESHOLD)
    for i in range(1, len(v)):
        value, j = v[i], i
        if i < guarded and less(value, v[0]):
            v[1 : i + 1] = v[:i]
            v[0] = value
            continue
        while less(value, v[j - 1]):
            v[j] = v[j - 1]
            j -= 1
        v[j] = value


def _heap_sort(v: list[T], less: Less[T]) -> list[T]:
    """``std::partial_sort`` of all of it."""
    for parent in range((len(v) - 2) // 2, -1, -1):
        _adjust(v, parent, len(v), v[parent], less)
    for end in range(len(v) - 1, 0, -1):
        value, v[end] = v[end], v[0]
        _adjust(v, 0, end, value, less)
    return v


def _adjust(v: list[T], hole: int, length: int, value: T, less: Less[T]) -> None:
    top, child = hole, hole
    while child < (length - 1) // 2:
        child = 2 * (child + 1)
        if less(v[child], v[child - 1]):
            child -= 1
        v[hole] = v[child]
        hole = child
    if length % 2 == 0 and child == (length - 2) // 2:
        child = 2 * (child + 1)
        v[hole] = v[child - 1]
        hole = child - 1
    parent = (hole - 1) // 2
    while hole > top and less(v[parent], value):
        v[hole] = v[parent]
        hole, parent = parent, (parent - 1) // 2
    v[hole] = value
