"""Delivery of the outbox: to each keystore and the metadata service, again and again until it answers."""
