"""LoRA adapters out of and into whole checkpoints: `llmctl lora merge`, `extract`."""
