"""Run directories, releases and their lineage on disk, with the records in their manifests. Knows nothing of how
samples are made, filtered or trained on.
"""
