"""The web page of `drct serve`: `server` starts it, `page` lays it out, `service` does the work."""
