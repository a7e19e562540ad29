"""What is measured outside a run's samples: preview, teacher probe, judge calibration, held-out evaluation,
topology study. Knows neither Prefect nor the report.
"""
