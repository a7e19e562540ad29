"""The same work done by other pipelines, each run by the Python of an environment of its own, made for it alone."""
