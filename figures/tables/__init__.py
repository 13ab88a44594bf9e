"""What pictures are drawn from: the tables of measured runs, read back and checked (docs/formats.md)."""
