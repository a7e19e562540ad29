"""Pages and cards written from records: run, filter, collapse, training; measures nothing."""
