"""The resident set of processes that run torch on a CPU: measured, recorded, and held beside what is predicted.

- ``python -m validation.process seen`` (or ``held-out``) measures the cases of :mod:`~validation.process.cases` that have no result yet,
  each in a fresh process, and stores a line for each in ``validation/results/process``. The ``seen`` were looked at while the rules were
  written, the ``held-out`` were not. ``--malloc jemalloc --jemalloc LIBRARY`` measures under another allocator.
- ``python -m validation compare --process`` holds what is stored beside what is predicted.
- :mod:`~validation.process.recording` under ``validation/engines/interposer.c`` records every call of malloc in a network's steps, and
  :mod:`~validation.process.tabulating` makes of that the table of small blocks that the model plays.
- :mod:`~validation.process.replaying` holds the simulation of malloc against the C library itself.
"""
