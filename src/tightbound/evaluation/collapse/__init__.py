"""Whether a posterior has collapsed, why, and what to do."""
