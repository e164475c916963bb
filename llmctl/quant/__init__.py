"""Layer 3, weights in few bits: canonical forms, the files that hold them, kernels that compute on them."""
