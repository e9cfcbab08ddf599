"""What a sweep has shown, and how surely: curves over rho, memory laws, paired differences. Arrays in, numbers out; no torch."""
