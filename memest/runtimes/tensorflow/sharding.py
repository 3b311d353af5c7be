"""Into how many blocks a kernel's work is cut for the threads of its pool: each takes a buffer of its own.

Source: tensorflow/core/util/work_sharder.cc (Shard) and Eigen's TensorDeviceThreadPool.h (parallelFor, CalculateParallelForBlock) and
TensorCostModel.h. Costs are cycles of a unit.
"""

from __future__ import annotations

STARTUP, PER_THREAD, TASK = 100_000, 100_000, 40_000  # cycles: kStartupCycles, kPerThreadCycles, kTaskSize
OVERSHARDING = 4  # blocks a thread, at most
SLACK = 0.01  # of efficiency, that coarser blocks may cost


def blocks(units: int, cost: int, threads: int) -> int:
    """Blocks of ``units`` that cost so many cycles each: one where a second thread does not pay."""
    worth = min(threads, int((units * cost - STARTUP) / PER_THREAD + 0.9))
    if units <= 1 or worth <= 1:
        return 1
    size = min(units, max(-(-units // (OVERSHARDING * threads)), TASK // cost))
    most, found = min(units, 2 * size), -(-units // size)
    best = _efficiency(found, threads)
    fewer = found
    while best < 1 and fewer > 1:
        coarser = -(-units // (fewer - 1))
        if coarser > most:
            break
        fewer = -(-units // coarser)
        if _efficiency(fewer, threads) + SLACK >= best:
            found, best = fewer, max(best, _efficiency(fewer, threads))
    return found


def _efficiency(count: int, threads: int) -> float:
    """The share of the threads' time in which they work."""
    return count / (-(-count // threads) * threads)
