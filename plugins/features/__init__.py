"""Features of a dataset by a sparse autoencoder on a model: the dictionary, gaps, subsets. Knows no Prefect."""
