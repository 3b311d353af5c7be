"""What each layer of Keras is in torch's operators, family by family."""
