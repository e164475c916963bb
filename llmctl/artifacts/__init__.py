"""Layer 5: weights in, weights out: what makes checkpoints of checkpoints."""
