"""The built-in recipes, how any recipe is found and loaded, and the page of all its keys; knows no run."""
