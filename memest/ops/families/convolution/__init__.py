"""Convolutions: the row, its geometry, its kernels in oneDNN and in ATen."""
