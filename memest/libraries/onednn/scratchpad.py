"""How oneDNN adds up the buffers an implementation books in its scratchpad.

Source: oneDNN v3.12 src/common/memory_tracking.hpp (``registry_t::book``).
"""

from __future__ import annotations

ALIGNMENT = 128
PAGE_BYTES = 4096


def scratchpad_size(*buffers: int) -> int:
    """Bytes of a scratchpad holding ``buffers``: each non-empty one is followed by room to align it; empty ones take nothing."""
    return sum(size + ALIGNMENT for size in buffers if size)


def barriers_bytes(count: int) -> int:
    """Bytes one entry of ``count`` barriers takes: a page each, aligned to pages."""
    return (count + 1) * PAGE_BYTES
