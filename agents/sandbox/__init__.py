"""Runs Python that a model wrote: no network, no host files, one scratch folder, limits on all resources. Knows no
task and judges no result.
"""
