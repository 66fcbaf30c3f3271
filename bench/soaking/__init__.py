"""The soak test: bench/soak --help."""
