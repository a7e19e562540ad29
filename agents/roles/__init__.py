"""The agents of a sample (generator, critic, verifier, debater) and the state that they hand over. Knows no topology:
the order of the agents is decided elsewhere.
"""
