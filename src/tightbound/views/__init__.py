"""What a model shows, as values: samples, reconstructions, interpolations, traversals and completions."""
