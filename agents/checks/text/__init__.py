"""Checks of what a text states: values, quotes, numbers, dates, support by a passage. Knows no recipe family and
no teacher.
"""
