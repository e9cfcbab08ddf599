"""How a person sees results: formats, the terminal, tables, figures, the report."""
