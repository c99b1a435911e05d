"""The client's side of the keystores: what is asked of which, and what their answers make."""
