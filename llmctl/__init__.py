"""llmctl: run open language models on any machine. The command is `llmctl`; this package is its inside."""

__version__ = "0.1.0"
