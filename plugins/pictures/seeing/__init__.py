"""Students that see: how they are asked."""
