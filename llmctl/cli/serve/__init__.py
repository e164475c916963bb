"""The parts of a fleet: controller, workers and gateway, and all of them at once."""
