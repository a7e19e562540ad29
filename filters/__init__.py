"""Filters: documents in; kept and dropped documents out, each drop with a reason. No network. The only files are models in
packages, and the evaluation sets and indexes that a recipe names.
"""
