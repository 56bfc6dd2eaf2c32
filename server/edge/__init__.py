"""Where the sockets are: the only place that knows ``websockets`` connections, transports and the event loop."""
