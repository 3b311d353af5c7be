"""A torch module as other tools look at it: by hooks on its modules, and by torch's own tracker of memory."""
