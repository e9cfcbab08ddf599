"""Every setting of a model and of its training: frozen, validated, hashable.

A config holds everything that can change a result and nothing else: devices, folders and intervals of a single run are not here.
Unknown fields are errors.
"""
