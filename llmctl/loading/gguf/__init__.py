"""GGUF files: their head, the model that it tells of, the names that users give. No torch."""
