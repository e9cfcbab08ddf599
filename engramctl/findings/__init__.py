"""What the rows show, as numbers: no drawing, no Ray, no torch."""
