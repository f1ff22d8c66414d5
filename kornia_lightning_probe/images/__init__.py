"""Which images are probed, read how, dealt into which blocks. Knows no model and no bank."""
