"""What `run` is given as words: a model, checkpoints, images and a bank, each made or read here."""
