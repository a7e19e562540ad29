"""The student-first cascade: calibrated, stored, and served behind OpenAI's chat protocol. Knows no training and no page."""
