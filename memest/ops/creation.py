"""Being written by another colleague at this moment (resampling, padding, creation): leave it to them."""

from __future__ import annotations
