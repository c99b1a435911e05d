"""The WLCG Tape REST API, version 1, with PACSs in the place of tapes: requests, pins, and who works on them."""
