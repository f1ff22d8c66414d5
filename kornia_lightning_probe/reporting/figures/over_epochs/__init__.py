"""What happens to a model over its training, in pictures."""
