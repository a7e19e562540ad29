"""Evaluation of a student, a topology or a dataset on held-out seeds, rows or real text. Trains nothing, knows no Prefect."""
