"""Training from conversations to a finished student: setup, steps, objectives, losses, checkpoints. Knows no run directory."""
