"""The report: what a sweep has shown, on one self-contained page."""
