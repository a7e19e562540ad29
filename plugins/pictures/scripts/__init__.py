"""Scripts of fake teachers for these families."""
