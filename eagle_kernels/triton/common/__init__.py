"""What the Triton kernels share: launching, ranking, matrix products, noise and filters."""
