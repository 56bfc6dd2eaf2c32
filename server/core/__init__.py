"""The ground floor: pure and synchronous. No asyncio, socket, clock, logging or metrics library below this line."""
