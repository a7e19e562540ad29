"""Two datasets compared: their rows, and what the records of their runs say; trains and measures nothing."""
