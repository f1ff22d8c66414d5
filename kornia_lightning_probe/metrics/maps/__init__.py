"""Measures of maps that move along with the image."""
