"""`stillhouse filter`: any dataset through the filters, resumable and larger than memory; knows no run and no
teacher.
"""
