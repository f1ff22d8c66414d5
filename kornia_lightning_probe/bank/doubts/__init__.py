"""What is worth a doubt: images that are not what the bank was told, and views that do not do what they seem to."""
