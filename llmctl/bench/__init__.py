"""Measures llmctl on this machine; nothing that a model needs in order to run."""
