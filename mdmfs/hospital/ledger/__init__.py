"""What registration has under way: series, items for other zones, quarantined instances."""
