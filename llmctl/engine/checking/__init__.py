"""Whether the fast ways are right for a class of models, found out on a small twin of it."""
