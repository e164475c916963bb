"""Shrinks a checkpoint: the weights of its layers in 8 or 4 bits, in formats that others load too."""
