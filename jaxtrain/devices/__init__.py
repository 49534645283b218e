"""What runs on which devices and processes."""
