"""Crashes, bad disks and overlapping runs, driven by real processes."""
