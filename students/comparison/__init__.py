"""A student compared with its start and its teacher: held-out losses, lm-evaluation-harness. Knows no recipe's checks."""
