"""Scripts of fake teachers."""
