"""Layer 5: turns requests into tokens."""
