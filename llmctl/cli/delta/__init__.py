"""`llmctl delta`: what makes one checkpoint of another."""
