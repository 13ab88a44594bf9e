"""The pictures of each question, as figures that point into tables."""
