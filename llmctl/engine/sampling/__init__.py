"""Choosing the next token of many requests at once; `generate.sampler` does the same for one, plainly."""
