"""torch's CUDA build: kernels that allocate otherwise than the CPU's, libraries' workspaces, the caching allocator."""
