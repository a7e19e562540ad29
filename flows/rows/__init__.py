"""Rows of any dataset: which files and forms are read, and how a row becomes a document or a conversation."""
