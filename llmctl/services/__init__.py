"""Layer 6: llmctl and the network, as the client of servers and as a server."""
