"""Grids of runs that compare methods on real volumes."""
