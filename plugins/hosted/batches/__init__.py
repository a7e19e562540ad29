"""Batch APIs: questions are collected, sent as one batch, and answered within a day at a lower price. Knows no agent."""
