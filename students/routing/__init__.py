"""Routing between a student and its teacher: confidence signals, classifiers, quality and cost. Knows no model, no torch."""
