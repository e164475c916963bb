"""The tests mirror the package: tests/core for llmctl/core, and so on."""
