"""What latents tell: codes, positions, factors."""
