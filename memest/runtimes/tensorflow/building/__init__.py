"""A network of layers as the operations that Keras calls for them, channels last; its loss, and the optimizer's operations."""
