"""Triton kernels. A module of this room is imported only where CUDA tensors arrive: not every machine has Triton."""
