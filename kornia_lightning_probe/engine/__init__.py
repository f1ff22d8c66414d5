"""The one loop: images through the model, activations into tables. Knows no words and no pictures."""
