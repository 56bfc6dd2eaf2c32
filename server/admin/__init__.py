"""The internal port: metrics, health, the debug pages and the server API, over aiohttp."""
