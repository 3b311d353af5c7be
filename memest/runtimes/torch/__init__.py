"""torch: autograd, one step of training or inference, losses and optimizers."""
