"""Inference engines measured, each in an environment of its own, and held against predictions."""
