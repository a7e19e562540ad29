"""Files of weights: GGUF files on disk, their headers, and those of installed packages. Loads no model."""
