"""What the server tells: events, access records and the application's own logging, in one pipeline."""
