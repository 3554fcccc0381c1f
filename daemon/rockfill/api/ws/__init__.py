"""The websocket: frames in the shape that Home Assistant made common, commands of the one table, events of the bus."""
