"""Benchmarks of Ingot against its peers."""
