"""Letting one file out: decide, record, recall, de-identify, make sure, seal."""
