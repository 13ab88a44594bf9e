"""What stands beside each picture: pure functions on tables, one module per question."""
