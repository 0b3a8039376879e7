"""What the command line draws and says; nothing here is needed to decode."""
