"""What keeps the appliance from working, or from working fast, and what mends it."""
