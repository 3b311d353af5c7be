"""Which row a node is, operator by operator."""
