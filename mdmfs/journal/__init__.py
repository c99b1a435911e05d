"""Append-only journals: JSON lines chained by hashes, durable when they are said to be, whatever they say."""
