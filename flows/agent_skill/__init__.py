"""The skill for coding agents: what `stillhouse skill` prints and installs. `SKILL.md` is the text."""
