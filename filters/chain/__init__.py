"""The table of all filters, their requirements, and their execution in order. Knows no row format and no run directory."""
