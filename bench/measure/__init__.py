"""The parts of bench/run: what is measured, by whom, how it is shown."""
