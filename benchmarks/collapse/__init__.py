"""The collapse gate, measured: real corpora, generators that are trained on their own output, and what the gate says."""
