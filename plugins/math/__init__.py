"""Word problems and questions with one right answer, and checks of answers, expressions and worked steps."""
