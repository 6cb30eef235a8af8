"""Recipes whose teacher can only be talked to: it writes the data that the student learns."""
