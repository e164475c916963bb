"""Layer 3: LoRA adapters as PEFT saves them: their files, what they mean, what they make of a base."""
