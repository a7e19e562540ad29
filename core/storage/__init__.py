"""Files written whole or not at all, untrusted files read within bounds, samples as Parquet, object stores and
leases. Knows no run and no recipe.
"""
