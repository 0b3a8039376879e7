"""The ops in Triton: GPU kernels for a build without nvcc, and a second opinion on the CUDA ones."""
