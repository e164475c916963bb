"""What a checkpoint is, from its configuration and headers alone. No torch."""
