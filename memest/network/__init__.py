"""A network as data: tensors, dtypes, the graph of layers."""
