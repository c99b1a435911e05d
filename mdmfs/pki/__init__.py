"""Who a peer is: certificates, proxies, trust anchors, and the TLS contexts made of them."""
