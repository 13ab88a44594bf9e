"""One reader per published raw layout; `unimed_model.data.sources` says which dataset has which."""
