"""Scripts of fake teachers that write conversations with tools."""
