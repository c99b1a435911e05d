"""Who calls, and with which credential we speak for them."""
