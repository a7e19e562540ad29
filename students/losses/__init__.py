"""The losses of distillation, and a recipe's weighted objective. Knows no optimizer and no file."""
