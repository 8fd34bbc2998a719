"""Simple models as baselines on the same data."""
