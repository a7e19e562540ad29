"""Our checks, compared with answers and scorers that others wrote."""
