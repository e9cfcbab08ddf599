"""What rows say, as numbers: no drawing, no Ray, no torch."""
