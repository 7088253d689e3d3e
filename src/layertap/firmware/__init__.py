"""What runs on a board, and what it says to its host."""
