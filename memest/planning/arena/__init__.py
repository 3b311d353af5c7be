"""One inference call as an engine could lay it out: which values are made and read when, which can share a place, in which order the
operators run, and how far that, other dtypes and windows bring the memory down."""
