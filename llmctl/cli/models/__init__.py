"""`llmctl models`: which families llmctl knows, what a name is taken for, what a checkpoint is."""
