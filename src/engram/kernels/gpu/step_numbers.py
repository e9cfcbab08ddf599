"""Where a kernel finds the numbers of an optimiser's step: places in an fp32 tensor on the device, the same for every step."""

RATE, TABLE_RATE, CORRECTION1, CORRECTION2, ROUNDING_KEY = range(5)
"""Rates of dense weights and of table rows, Adam's bias corrections of table rows, and the bits of an int32."""
COUNT = 5
