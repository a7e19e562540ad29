"""Sources of seeds: the user's documents as chunks, and the conditions drawn for each sample. Knows no recipe family and no
plan.
"""
