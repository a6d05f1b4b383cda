"""What is left to run and what it takes: the condition that fits here, the trials to be used again, hours ahead."""
