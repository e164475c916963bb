"""What each step computes, and where keys and values lie. Plain Python, no tensors."""
