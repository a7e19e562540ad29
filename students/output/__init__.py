"""A finished student on disk: its folder with model card, and GGUF. Knows no training step."""
