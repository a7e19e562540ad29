"""Simulated services with generated tools, and plans of conversations with them."""
