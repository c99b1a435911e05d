"""What every daemon of a site has, whatever it says to others: configuration, stores, backups, a watch over it."""
