"""One module per question that is asked of a model: measured here, drawn by ``figures``."""
