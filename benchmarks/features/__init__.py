"""Features of a sparse autoencoder, measured next to a random dictionary, words and clusters."""
