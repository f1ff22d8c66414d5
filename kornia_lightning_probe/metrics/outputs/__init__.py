"""Measures of what a model predicts."""
