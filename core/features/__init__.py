"""Features of documents, as students compute and filters compare them."""
