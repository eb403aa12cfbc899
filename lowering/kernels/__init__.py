"""Loop nests of fused groups, one file per shape of nest."""
