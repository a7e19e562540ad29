"""`stillhouse export-env`: a recipe as an environment for reinforcement learning, whose reward is the recipe's checks."""
