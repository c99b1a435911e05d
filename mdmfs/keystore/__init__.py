"""One share of each file key, given to whom this zone's own decision allows; no images, no whole key."""
