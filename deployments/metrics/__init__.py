"""What an operator can see of a replica: every counter, gauge and histogram."""
