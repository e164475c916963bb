"""`llmctl logs`: look at past conversations, take them out, delete them."""
