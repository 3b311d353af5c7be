"""Operators: one row each, one family a file; the table, and the tape that rows are read on."""
