"""The architectures of students: their layers in transformers and in llama.cpp, and their tokenizers. Knows no training step."""
