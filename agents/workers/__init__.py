"""Worker processes that make a run's samples, while teachers, ledgers and budget stay in the main process: protocol,
worker, pool. Knows no Dask and no Ray.
"""
