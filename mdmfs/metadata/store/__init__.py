"""Where attributes and records lie: tables in SQLite or PostgreSQL, reached through SQLAlchemy Core only."""
