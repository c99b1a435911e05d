"""Names that users make: collections, aliases and comments, decided and recorded as everything else."""
