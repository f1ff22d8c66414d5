"""Where we look in a model, how it is called, and how it is left as it was. Chooses no images, knows no metric."""
