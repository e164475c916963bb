"""Ways to generate: `single` is the plain one, for one request at a time."""
