"""What reading and mixing data costs, one module for each section of ``benchmarks/data.py``."""
