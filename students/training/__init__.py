"""Training from conversations to a finished student: setup, steps, learning rate, checkpoints. Knows no run directory."""
