"""A whole training step, written down as layers and actions."""
