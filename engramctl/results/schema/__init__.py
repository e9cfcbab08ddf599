"""The columns of every table in a results folder: names, types, units and meanings."""
