"""What is left to run and what it takes: which condition fits here, which trials are used again, and the hours left."""
