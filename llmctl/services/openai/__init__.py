"""OpenAI's protocol as a server speaks it: bodies into core types, deltas into answers. The only pydantic."""
