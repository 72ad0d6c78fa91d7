"""The arithmetic of sparse codes: exact rankings, sparse products, kernels."""
