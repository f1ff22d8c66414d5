"""What is done to the images: named, seeded ladders of augmentations. Knows no model."""
