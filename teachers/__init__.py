"""One client for every model: requests and replies, endpoints, rate limits, and the servers that this process
starts. Knows no agent, no recipe family and no run.
"""
