"""The sealed object: a file's bytes on their way to a worker and in every cache (docs/sealed-object.md), pure."""
