"""Measures every op on every backend against float64."""
