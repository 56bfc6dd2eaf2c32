"""What orders publications, keeps history and presence, and tells every process that has subscribers."""
