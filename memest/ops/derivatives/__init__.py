"""Backward as calls of operators: what ``create_graph=True`` records, and what the backward of a backward does."""
