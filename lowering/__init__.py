"""How to compute it: graph in, program out; no state, no threads."""
