"""The query language: text to syntax, syntax to a checked query; no database. The grammar is docs/query.md."""
