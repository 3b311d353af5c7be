"""Predictions against measured torch."""
