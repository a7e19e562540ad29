"""The page on which people review samples, and its server. Decides nothing about a dataset: `flows.clean` applies the log."""
