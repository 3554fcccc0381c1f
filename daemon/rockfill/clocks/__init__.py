"""The clocks: raised while that helps, and given back as they were found."""
