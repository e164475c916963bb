"""Shell completions: static scripts, made from the command tree, that start no Python when TAB is pressed."""
