"""What is decided before a teacher is asked: the plan of a run, the values of its prompts, the seed of every sample, and the
critic's rubrics. Knows no running teacher and no topology.
"""
