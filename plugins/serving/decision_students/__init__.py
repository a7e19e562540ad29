"""Decision students: vectors of texts, linear heads, and the bound on their disagreement with the teacher. Knows no teacher."""
