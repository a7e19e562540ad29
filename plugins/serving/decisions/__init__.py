"""Decisions: typed questions, texts with a teacher's votes, and the command and the server of students that answer them."""
