"""Our checks compared with what others wrote: their solutions, answers and scorers."""
