"""Layer 0: errors, types, the backend seam, settings, logging, lazy imports. Standard library only."""
