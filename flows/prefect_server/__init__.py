"""The Prefect server: finding and starting it, deployments, automations, progress and artifacts. Knows no stage of a run."""
