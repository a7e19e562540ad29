"""A run, stage by stage, from recipe to student and report. Knows no command line."""
