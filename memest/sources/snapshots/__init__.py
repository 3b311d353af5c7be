"""Histories that torch's allocators recorded, read from the files that people have."""
