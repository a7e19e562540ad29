"""The recipe and its tables as frozen types, and how they are read from TOML. Knows no prompt, no teacher and no
run directory.
"""
