"""How fast training is here and where its time goes: measurements only, results as dataclasses."""
