"""The report of a test set: one HTML file that opens offline."""
