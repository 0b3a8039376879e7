"""The ops in Triton: GPU kernels for a build without nvcc, and a second opinion on the CUDA ones."""

from eagle_kernels.triton.common import interpreter

interpreter.repair()
