"""Layer 4: from a model's name to a model in memory."""
