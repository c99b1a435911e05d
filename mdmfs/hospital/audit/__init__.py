"""What is done with the audit log: deposited elsewhere as checkpoints, verified, asked, exported."""
