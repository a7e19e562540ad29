"""The simulated world, its tools, and plans of conversations with them."""
