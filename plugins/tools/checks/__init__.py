"""The checks of conversations with tools, and the facts that they read out of replies."""
