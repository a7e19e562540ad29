"""What the texts of one dataset have in common, and how its samples cover their seeds: templates, examples, intervals, spread."""
