"""De-identification after PS3.15 Annex E: an instance, a policy and a subject in, a file out; no I/O."""
