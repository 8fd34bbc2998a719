"""From the options of a recipe to the parts of a model."""
