"""The conversation at a terminal: `repl` is its loop, `commands/` what begins with a slash."""
