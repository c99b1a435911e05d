"""Shares of file keys: k of n make the key, fewer tell nothing about it; pure."""
