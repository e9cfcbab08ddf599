"""The memory inside the model: hashing of N-grams, tables of rows, and what the rows add to the model.

Shapes: B sequences, T tokens, M residual branches, d width, H rows that one token reads ((N - 1) K), r numbers in a row, d_mem numbers in
the memory vector of one site.
"""
