"""Rows on disk and in memory: datasets, a run's kept samples, mixtures, preference pairs, forms, students' folders
and storage; knows no Prefect and no page.
"""
