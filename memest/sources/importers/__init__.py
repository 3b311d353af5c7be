"""Readers of other people's networks: leaves of the house, reached by name only."""
