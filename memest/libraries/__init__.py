"""Models of the kernel libraries torch calls: which implementation is taken and what scratch it needs."""
