"""What differs between two recordings, and how surely."""
