"""A server that llmctl is the client of: where it is, what is sent, what comes back, what goes wrong."""
