"""Checks of the ops' numbers on the machine at hand."""
