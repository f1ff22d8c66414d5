"""What is kept of a training's results: in how many digits, and in which form a checkpoint holds them."""
