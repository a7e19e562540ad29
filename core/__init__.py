"""The words the whole house shares: samples, the recipe, the run directory, errors. Imports nothing of ours."""
