"""Pictures of charts, tables and documents, drawn from data, and questions whose answers are computed from the same data."""
