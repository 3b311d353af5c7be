"""Which call of torch is which row, a file for each kind of call."""
