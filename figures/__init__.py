"""One module per picture; drawn from tables alone, so that a picture never needs the model behind it."""
