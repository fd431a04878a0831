"""Triton kernels. A module with some is imported only where CUDA tensors arrive: not every machine has Triton."""
