"""`stillhouse mcp`: the commands as tools for a client of the Model Context Protocol, within limits that the user sets. Not to be
confused with the package `agents`, whose agents make samples.
"""
