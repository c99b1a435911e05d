"""Bringing images into the namespace, once each: retrieve, measure, remember, share the key out, show."""
