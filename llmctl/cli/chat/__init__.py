"""`llmctl chat`: what the user gives (input), one answer (answer), who asks (command and the loops)."""
