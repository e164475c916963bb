"""What makes one checkpoint of another: `llmctl delta make`, `apply`, `show`, `verify`."""
