"""Dask and Ray: how work reaches the workers of a cluster; knows no sample, no file and no filter of a run."""
