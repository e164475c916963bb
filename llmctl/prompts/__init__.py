"""Layer 1: conversations into prompt text. No torch."""
