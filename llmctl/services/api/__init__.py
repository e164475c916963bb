"""The gateway: the OpenAI protocol over a fleet of workers."""
