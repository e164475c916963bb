"""The controller: which workers there are, what they serve, how busy they are. It calls nobody."""
