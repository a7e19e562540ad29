"""What all other packages use: samples, the recipe, run directories, storage, errors. Imports none of them."""
