"""The worker: models of this process behind HTTP, told to controllers."""
