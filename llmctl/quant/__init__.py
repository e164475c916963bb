"""Layer 3: weights in few bits: their canonical forms, the files that hold them, the kernels that compute on them."""
