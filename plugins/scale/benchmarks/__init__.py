"""What was measured for this plugin."""
