"""Processes that share a node, measured: ranks of a data-parallel run, workers of a data loader (``python -m validation.cluster``)."""
