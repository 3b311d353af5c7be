"""Attention: the fused kernel, its products, and attention of several heads."""
