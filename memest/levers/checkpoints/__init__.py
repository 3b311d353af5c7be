"""Where to checkpoint: segments named by modules, blocks of a network, what recomputing costs, and the search for the best segments."""
