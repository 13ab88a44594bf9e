"""What exact inner products of gradients cost, by ``tugofwar`` and by others; see ``benchmarks/README.md``."""
