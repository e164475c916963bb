"""A step as tensors through an unmodified model: runner, handlers of the three tiers, storage."""
