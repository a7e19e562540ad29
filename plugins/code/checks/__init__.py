"""Checks of programs: tests read as data, solutions called in the sandbox, mutants. Knows no recipe family."""
