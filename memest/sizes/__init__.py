"""Numbers that are ints, symbols or columns of a table, and what is remembered of them."""
