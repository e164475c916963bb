"""Layer 7: the command line. One file per command; `console` is the only place that prints."""
