"""Champion and challenger: which package is shipped, why, and which are kept."""
