"""A torch module, or a whole training step, as a layer graph: what runs on meta tensors is written down."""
