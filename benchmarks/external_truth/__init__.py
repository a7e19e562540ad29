"""Our checks on data sets that others wrote."""
