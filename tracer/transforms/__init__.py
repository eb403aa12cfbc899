"""Function transforms: each runs the user's function on tracers and rewrites the recorded graph."""
