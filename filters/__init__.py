"""Filters: documents in; kept and dropped, each with a reason, out. No network, and no file but the models in packages, and
the evaluation sets and indexes that a recipe names.
"""
