"""What stands around calls and changes what autograd does to them: contexts, checkpoints, custom functions."""
