"""Attention over keys and values in blocks: one interface, a backend for each kind of device."""
