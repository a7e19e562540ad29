"""The start of a student: a teacher with fewer layers, channels, tokens or weights, or with adapters. Knows no loss."""
