"""The metadata zone: attributes of images and pseudonymous records, with ACLs of their own. Its room is empty yet."""
