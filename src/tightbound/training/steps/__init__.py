"""The computations of a training step."""
