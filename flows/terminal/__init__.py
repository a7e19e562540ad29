"""Terminal output: progress, numbers as text, summaries and suggested commands. Knows no Prefect and starts nothing."""
