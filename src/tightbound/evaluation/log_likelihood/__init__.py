"""Estimates of log p(x), and whether they can be trusted."""
