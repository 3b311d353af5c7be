"""What each operation's gradient is made of, as TensorFlow's own gradient functions have it, operation by operation."""
