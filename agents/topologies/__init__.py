"""Who hands over to whom: the orchestrator's policy, the LangGraph graphs, and the production of many samples at
once. Knows neither Prefect nor where samples are stored.
"""
