"""A number with its noun, which has an s unless the number is 1. Knows no other English."""


def format_count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
