"""What simple models reach on the same data."""
