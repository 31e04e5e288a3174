"""The demo's own parts: a small game, and a fleet of real agents as child processes. Nothing else imports it."""
