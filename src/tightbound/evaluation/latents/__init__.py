"""Analysis of latents: codes, positions, factors."""
