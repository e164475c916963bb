"""What the user can do in the REPL beside talking: `table` lists the commands, the other files do them."""
