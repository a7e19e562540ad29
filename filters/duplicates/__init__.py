"""Filters that find documents that repeat others, and the index of earlier releases. Know nothing of quality or collapse."""
