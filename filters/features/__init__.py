"""Sets of documents by their features: gaps compared with a reference, and subsets that cover most. Knows no model."""
