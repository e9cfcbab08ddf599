"""How people see results: number formats, terminal output, tables, figures, the report."""
