"""What report.py tells, a file for each section: figures, and sentences computed from the data."""
