"""Hosted providers with protocols of their own: Anthropic's Messages and Gemini's generateContent, sent by their vendors' client
libraries. Knows no recipe and no run.
"""
