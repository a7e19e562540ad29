"""Filters that decide on one document at a time. Know nothing of other documents."""
