"""Conversations that were held, kept on disk. Standard library only; knows no model and no terminal."""
