"""What to compute: dtypes, symbolic extents, primitives, the graph IR, arrays, tracing and transforms.

Pure Python and NumPy. Knows nothing of how a graph is run, except the one hook in `evaluate.py`.
"""
