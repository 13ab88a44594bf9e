"""What is done with a data root before training: check it, index it, show it."""
