"""What is under way: series, items for other zones, quarantined instances, requests to stage, replicas."""
