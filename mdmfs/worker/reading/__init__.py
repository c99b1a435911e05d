"""What is read of open files: ciphertext that is here or brought, unsealed and put into the page cache."""
