"""What the metadata service is told: attributes of published headers, and records without patients."""
