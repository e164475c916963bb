"""What makes a model that the engine owns faster than its own code does; begin with `own`."""
