"""One forward, written down as layers."""
