"""A fleet of this machine: which processes it is made of, how they are kept alive, where that is noted."""
