"""The Prefect server of a command: finding or starting it, progress and artifacts. Knows no stage of a run."""
