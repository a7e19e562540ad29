"""The teacher's signals: token probabilities, live or captured on disk, also of the student's own answers. Knows no loss."""
