"""Replicas: sealed objects on storage elements, published, named in answers, and taken away again."""
