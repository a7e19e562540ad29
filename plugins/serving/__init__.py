"""`serve`, `chat` and `route`: a student behind OpenAI's chat protocol or in the terminal, with the teacher where it is not
trusted; and `decisions`: students that answer typed questions about a text.
"""
