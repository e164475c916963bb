"""`llmctl lora`: adapters into whole checkpoints, and out of them."""
