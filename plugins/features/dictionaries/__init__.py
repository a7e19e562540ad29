"""Sparse autoencoders on the activations of a model: reading, training, files, features of documents. Knows torch."""
