"""What a sweep has shown, and how surely: curves over rho, memory laws, paired differences. Tables in, numbers out; no torch."""
