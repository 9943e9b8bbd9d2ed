"""One file per experiment; each says the command, the numbers and the wall time."""
