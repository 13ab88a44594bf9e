"""What a module does to features: captured before and after it, embedded, and compared."""
