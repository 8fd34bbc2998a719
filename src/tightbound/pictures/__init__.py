"""From values to images."""
