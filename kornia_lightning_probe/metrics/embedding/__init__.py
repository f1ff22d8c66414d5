"""Measures of the embedding alone."""
