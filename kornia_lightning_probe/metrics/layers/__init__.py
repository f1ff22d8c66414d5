"""Measures of a layer: how far its activations move."""
