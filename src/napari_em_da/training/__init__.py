"""One training loop for every method, its checkpoints, schedules and run folders."""
