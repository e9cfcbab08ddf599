"""The Engram memory: hashing of N-grams, tables of rows, fusion into the residual stream.

Shapes: B sequences, T tokens, M residual branches, d width, H rows that one token reads ((N - 1) K), r numbers in a
row, d_mem = H r.
"""
