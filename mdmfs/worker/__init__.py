"""The worker zone: plaintext of files granted to the caller, ciphertext on disk, no DICOM UID at all."""
