"""What a model shows, as values: samples, reconstructions, walks, completions."""
