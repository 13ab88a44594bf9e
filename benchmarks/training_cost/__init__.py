"""Sections of ``benchmarks/training.py``."""
