"""The report: one page of HTML with every picture of measured runs, which opens without a network."""
