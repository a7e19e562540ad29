"""Scripted teachers for tests and trials: the same reply to the same request, with faults at the rates that the
recipe asks for. Knows reply schemas by name only.
"""
