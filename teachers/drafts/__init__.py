"""A draft of a teacher: what proposes tokens, which the teacher then verifies at once."""
