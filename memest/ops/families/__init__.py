"""The operators, one file a family; each is one row."""
