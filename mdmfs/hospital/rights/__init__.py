"""Who sees what of the catalogue, who changes that, and when a change holds everywhere."""
