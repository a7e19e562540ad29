"""Checks of answers, expressions and worked steps, and the algebra behind them. Knows no recipe family and
executes nothing.
"""
