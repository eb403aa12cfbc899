"""Graph to simpler graph: calls are inlined, equal nodes merged, dead ones dropped, rules applied.

Every pass keeps inputs, constants, guards and the values of the outputs, bit for bit.
"""
