"""Releases on the Hugging Face Hub: publish and pull. Makes no release and changes none."""
