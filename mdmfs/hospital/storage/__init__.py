"""Storage elements: places that keep sealed objects and know no keys, and what is to be put there and to go."""
