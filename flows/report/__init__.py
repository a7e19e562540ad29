"""Pages and cards written from records: run, filter, collapse, training, cascade; measures nothing."""
