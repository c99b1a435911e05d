"""Which first byte of a key is whose; at least one byte follows it, as is said at the code that writes it."""

from __future__ import annotations

from typing import Final

FORMAT: Final = b"!"
COUNTERS: Final = b"#"

SUBJECTS: Final = b"s"
PATIENTS: Final = b"S"
MERGES: Final = b"Y"

INSTANCES: Final = b"n"
PLACES_OF_GUIDS: Final = b"g"
GUIDS_OF_INSTANCE: Final = b"u"
CONTEXTS: Final = b"c"
CONTEXT_NUMBERS: Final = b"C"
CONTEXTS_OF_SERIES: Final = b"m"

FILES: Final = b"f"
INODES_OF_GUIDS: Final = b"i"
KINDS: Final = b"k"
KIND_NUMBERS: Final = b"K"
DIRECTORIES: Final = b"d"
ENTRIES: Final = b"e"
RESERVATIONS: Final = b"r"
PENDING: Final = b"P"
ACLS: Final = b"a"
ACL_VALUES: Final = b"A"
ACL_NUMBERS: Final = b"B"
OWN_ACLS: Final = b"y"
COMMENTS: Final = b"h"
MAKERS: Final = b"M"
MAKER_NUMBERS: Final = b"W"
MADE_BY: Final = b"b"
DONE: Final = b"D"
DONE_IN_ORDER: Final = b"E"
FEED: Final = b"v"
TOTALS: Final = b"t"

SERIES: Final = b"x"
SERIES_BY_STATE: Final = b"X"
SERIES_BY_LFN: Final = b"l"
OUTBOX: Final = b"o"
OUTBOX_REMAINING: Final = b"O"
QUARANTINE: Final = b"q"
NOTICES: Final = b"N"
RECORDS: Final = b"p"
LOSSES: Final = b"L"
RECONCILIATIONS: Final = b"R"
CHANGES_OF_KEYS: Final = b"j"
ACKNOWLEDGED: Final = b"J"
DESTRUCTIONS: Final = b"T"
STAGES: Final = b"w"
REPLICAS: Final = b"z"
REPLICAS_LEAVING: Final = b"Z"

ALL: Final = (
    FORMAT,
    COUNTERS,
    SUBJECTS,
    PATIENTS,
    MERGES,
    INSTANCES,
    PLACES_OF_GUIDS,
    GUIDS_OF_INSTANCE,
    CONTEXTS,
    CONTEXT_NUMBERS,
    CONTEXTS_OF_SERIES,
    FILES,
    INODES_OF_GUIDS,
    KINDS,
    KIND_NUMBERS,
    DIRECTORIES,
    ENTRIES,
    RESERVATIONS,
    PENDING,
    ACLS,
    ACL_VALUES,
    ACL_NUMBERS,
    OWN_ACLS,
    COMMENTS,
    MAKERS,
    MAKER_NUMBERS,
    MADE_BY,
    DONE,
    DONE_IN_ORDER,
    FEED,
    TOTALS,
    SERIES,
    SERIES_BY_STATE,
    SERIES_BY_LFN,
    OUTBOX,
    OUTBOX_REMAINING,
    QUARANTINE,
    NOTICES,
    RECORDS,
    LOSSES,
    RECONCILIATIONS,
    CHANGES_OF_KEYS,
    ACKNOWLEDGED,
    DESTRUCTIONS,
    STAGES,
    REPLICAS,
    REPLICAS_LEAVING,
)
ASCENDING: Final = frozenset({INSTANCES, FILES, ENTRIES, DIRECTORIES, FEED, CONTEXTS, CHANGES_OF_KEYS, DONE_IN_ORDER})
"""Tables whose new keys mostly come last: an engine can pack them densely."""
