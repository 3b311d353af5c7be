"""Who runs a network: the only place where a network meets kernels."""
