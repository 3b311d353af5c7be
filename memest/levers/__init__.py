"""Levers: what can be changed to need less memory. One file a family of levers, one row a lever, all rows in ``table``."""
