"""The namespace: directories and files as inodes, their ACLs, and the feed of what changed."""
