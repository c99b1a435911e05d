"""Who may do what: ACLs and decisions, pure."""
