"""Readers of files that others quantised, one file a format, all to the canonical forms of `weights`."""
